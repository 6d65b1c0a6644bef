"""Whole sequences through the layers and directions of a recurrent module, called as ``torch.nn.LSTM`` is.

Rows are packed as in :class:`torch.nn.utils.rnn.PackedSequence`; see :mod:`sparse_rnn.engine.ops` for the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.engine import ops

State: TypeAlias = "Tensor | tuple[Tensor, Tensor]"


@dataclass(frozen=True)
class Weights:
    """What a layer in one direction computes with; see :func:`sparse_rnn.engine.ops.layer`.

    Attributes:
        cell: Its cell.
        roles: Its kernels.
        values: For each of them its kept weights.
        offsets: For each of them where its rows begin.
        columns: For each of them which input a weight reads.
        blocks: Three tensors for each of them, or none.
        scales: One tensor for each of them where the values are of 8 bits, or none.
        bias: [H, S], or None.
        peephole: [3, H], or None.
    """

    cell: str
    roles: Sequence[str]
    values: Sequence[Tensor]
    offsets: Sequence[Tensor]
    columns: Sequence[Tensor]
    blocks: Sequence[Tensor] = ()
    scales: Sequence[Tensor] = ()
    bias: Tensor | None = None
    peephole: Tensor | None = None


Layers = Sequence[Sequence[Weights]]


def joined_bias(cell: str, bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
    """Add up the biases of a layer [G·H] to one number for each slot of a unit, [H, S]."""
    slots = ops.slots_of_unit(cell)
    if cell != "gru":
        return (bias_ih + bias_hh).unflatten(0, (slots, -1)).t().contiguous()
    units = bias_ih.shape[0] // 3
    gates, n_x = bias_ih.tensor_split((2 * units,))
    state_gates, n_h = bias_hh.tensor_split((2 * units,))
    return torch.cat((gates + state_gates, n_x, n_h)).unflatten(0, (slots, -1)).t().contiguous()


def call_like_torch(
    layers: Callable[[], Layers],
    input: Tensor | PackedSequence,
    hx: State | None,
    sizes: tuple[int, int | None],
    batch_first: bool,
    dropout: float,
) -> tuple[Tensor | PackedSequence, State]:
    """Run layers on what ``torch.nn.RNN``, ``GRU`` and ``LSTM`` can be called with; the arguments have been checked.

    Args:
        layers: Gives the layers, each with its directions.
        input: [T, B, I], [B, T, I] with ``batch_first``, [T, I], or a PackedSequence.
        hx: The initial state h, or (h, c), [layers · directions, B, units]; zeros if not given.
        sizes: Number of units of h, and of c, None where there is no c.
        batch_first: Whether the batch comes before time.
        dropout: Probability of dropping an output between layers.
    """
    made = layers()
    states = len(made) * len(made[0])
    if isinstance(input, PackedSequence):
        rows, batch_sizes, order, places = input
        state = _initial(rows, hx, states, int(batch_sizes[0]), sizes)
        if hx is not None and order is not None:
            state = [part.index_select(1, order) for part in state]
        starts = batch_sizes.cumsum(0) - batch_sizes
        lengths = (batch_sizes.unsqueeze(0) > torch.arange(int(batch_sizes[0])).unsqueeze(1)).sum(1)
        rows, state = run_layers(made, rows, starts, lengths, state, dropout)
        if places is not None:
            state = [part.index_select(1, places) for part in state]
        return PackedSequence(rows, batch_sizes, order, places), _as_given(state)
    batched = input.dim() == 3
    if not batched:
        input = input.unsqueeze(1)
        if hx is not None:
            hx = (hx[0].unsqueeze(1), hx[1].unsqueeze(1)) if isinstance(hx, tuple | list) else hx.unsqueeze(1)
    elif batch_first:
        input = input.transpose(0, 1)
    steps, batch = input.shape[:2]
    state = _initial(input, hx, states, batch, sizes)
    starts = torch.arange(steps) * batch
    lengths = torch.full((batch,), steps)
    rows, state = run_layers(made, input.reshape(steps * batch, -1), starts, lengths, state, dropout)
    output = rows.unflatten(0, (steps, batch))
    if not batched:
        return output.squeeze(1), _as_given([part.squeeze(1) for part in state])
    return output.transpose(0, 1) if batch_first else output, _as_given(state)


def run_layers(
    layers: Layers, x: Tensor, starts: Tensor, lengths: Tensor, state: Sequence[Tensor], dropout: float
) -> tuple[Tensor, list[Tensor]]:
    """Run layers and directions after each other.

    Args:
        layers: The layers, each with its directions.
        x: [N, I].
        starts: [T], int64, in which row each step begins.
        lengths: [B], int64, falling.
        state: h, and c where there is one, [layers · directions, B, units].
        dropout: Probability of dropping an output between layers.

    Returns:
        The outputs [N, directions · P], and the last states as the first ones.
    """
    last: list[list[Tensor]] = [[] for _ in state]
    training = torch.is_grad_enabled()
    for index, directions in enumerate(layers):
        outputs = []
        for reverse, weights in enumerate(directions):
            h_0, *c_0 = (part[len(last[0])].contiguous() for part in state)
            out, *new, _ = ops.layer(
                weights.cell,
                x.contiguous(),
                h_0,
                c_0[0] if c_0 else None,
                weights.bias,
                weights.peephole,
                " ".join(weights.roles),
                weights.values,
                weights.offsets,
                weights.columns,
                weights.blocks,
                weights.scales,
                starts,
                lengths,
                bool(reverse),
                training,
            )
            outputs.append(out)
            for collected, part in zip(last, new, strict=False):  # without c one of them is empty
                collected.append(part)
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)
        if dropout > 0 and index + 1 < len(layers):
            x = F.dropout(x, dropout)
    return x, [torch.stack(parts) for parts in last]


def _initial(input: Tensor, hx: State | None, states: int, batch: int, sizes: tuple[int, int | None]) -> list[Tensor]:
    if hx is None:
        return [input.new_zeros(states, batch, size) for size in sizes if size is not None]
    return list(hx) if isinstance(hx, tuple | list) else [hx]


def _as_given(state: list[Tensor]) -> State:
    return state[0] if len(state) == 1 else (state[0], state[1])
