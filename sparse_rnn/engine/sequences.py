"""Whole sequences through the layers and directions of a recurrent module, called as ``torch.nn.LSTM`` is.

Rows are packed as in :class:`torch.nn.utils.rnn.PackedSequence`; see :mod:`sparse_rnn.engine.ops` for the shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.engine import ops, plain
from sparse_rnn.engine.direct import run_directly
from sparse_rnn.engine.library import library
from sparse_rnn.engine.slots import slots_of_unit
from sparse_rnn.engine.weights import Layers, Weights
from sparse_rnn.torch_compat import differentiates_forward, is_transforming

State: TypeAlias = "Tensor | tuple[Tensor, Tensor]"


def joined_bias(cell: str, bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
    """Add up the biases of a layer [G·H] to one number for each slot of a unit, [H, S]."""
    slots = slots_of_unit(cell)
    if cell != "gru":
        return (bias_ih + bias_hh).unflatten(0, (slots, -1)).t().contiguous()
    units = bias_ih.shape[0] // 3
    gates, n_x = bias_ih.tensor_split((2 * units,))
    state_gates, n_h = bias_hh.tensor_split((2 * units,))
    return torch.cat((gates + state_gates, n_x, n_h)).unflatten(0, (slots, -1)).t().contiguous()


def call_like_torch(
    layers: Layers,
    input: Tensor | PackedSequence,
    hx: State | None,
    sizes: Sequence[int],
    batch_first: bool,
    dropout: float,
) -> tuple[Tensor | PackedSequence, State]:
    """Run layers on what ``torch.nn.RNN``, ``GRU`` and ``LSTM`` can be called with; the arguments have been checked.

    Args:
        layers: The layers, each with its directions.
        input: [T, B, I], [B, T, I] with ``batch_first``, [T, I], or a PackedSequence.
        hx: The initial state h, or (h, c), [layers · directions, B, units]; zeros if not given.
        sizes: Number of units of h, and of c where there is one.
        batch_first: Whether the batch comes before time.
        dropout: Probability of dropping an output between layers.
    """
    states = len(layers) * len(layers[0])
    if isinstance(input, PackedSequence):
        rows, batch_sizes, order, places = input
        batch = _batch_of(input, hx)
        state = _initial(rows, hx, states, batch, sizes)
        if hx is not None and order is not None:
            state = [part.index_select(1, order) for part in state]
        starts = batch_sizes.cumsum(0) - batch_sizes
        lengths = (batch_sizes.unsqueeze(0) > torch.arange(batch, device="cpu").unsqueeze(1)).sum(1)
        rows, state = run_layers(layers, rows, starts, lengths, state, dropout)
        if places is not None:
            state = [part.index_select(1, places) for part in state]
        return PackedSequence(rows, batch_sizes, order, places), _as_given(state)
    batched = input.dim() == 3
    if not batched:
        input = input.unsqueeze(1)
        hx = hx if hx is None else _as_given([part.unsqueeze(1) for part in _parts(hx)])
    elif batch_first:
        input = input.transpose(0, 1)
    steps, batch, _ = input.shape
    state = _initial(input, hx, states, batch, sizes)
    # What is made while something is traced or transformed is for that alone.
    even = _even if _is_traced(input) or is_transforming() else _even_kept
    starts, lengths = even(steps, batch)
    output, state = run_layers(layers, input, starts, lengths, state, dropout)
    if not batched:
        return output.squeeze(1), _as_given([part.squeeze(1) for part in state])
    return output.transpose(0, 1) if batch_first else output, _as_given(state)


def run_layers(
    layers: Layers, x: Tensor, starts: Tensor, lengths: Tensor, state: Sequence[Tensor], dropout: float
) -> tuple[Tensor, list[Tensor]]:
    """Run layers and directions after each other.

    Args:
        layers: The layers, each with its directions.
        x: [N, I], or [T, B, I] where all sequences are of one length.
        starts: [T], int64, in which row each step begins; always on the CPU, as ``lengths`` is.
        lengths: [B], int64, falling.
        state: h, and c where there is one, [layers · directions, B, units].
        dropout: Probability of dropping an output between layers.

    Returns:
        The outputs, [N, directions · P] or [T, B, directions · P], and the last states as the first ones.
    """
    training = torch.is_grad_enabled() and any(
        tensor.requires_grad
        for tensors in ([x, *state], *(weights.tensors for directions in layers for weights in directions))
        for tensor in tensors
    )
    traced = _is_traced(x)
    transformed = not traced and (differentiates_forward() or is_transforming())
    if not (traced or transformed or library() is None or x.is_cuda):
        return run_directly(layers, x, starts, lengths, state, dropout, training)
    sizes = x.shape[:-1]
    x = x.reshape(-1, x.shape[-1])
    last: list[list[Tensor]] = [[] for _ in state]
    for index, directions in enumerate(layers):
        outputs = []
        for reverse, weights in enumerate(directions):
            if training and weights.values[0].dtype != x.dtype:
                weights = weights.widened(x.dtype)
            h_0, *c_0 = (part[len(last[0])].contiguous() for part in state)
            given = weights, x.contiguous(), h_0, c_0[0] if c_0 else None, starts, lengths, bool(reverse)
            out, *new = _run_plainly(*given) if transformed else _run_operator(*given, training)
            outputs.append(out)
            for collected, part in zip(last, new[: len(last)], strict=True):  # without c one of them is empty
                collected.append(part)
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)
        if dropout > 0 and index + 1 < len(layers):
            x = F.dropout(x, dropout)
    return x.view(*sizes, x.shape[-1]), [torch.stack(parts) for parts in last]


def _run_operator(
    weights: Weights,
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor | None,
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
    training: bool,
) -> Sequence[Tensor]:
    """Run a layer in one direction by the operator; return its outputs and its last states, c empty without one."""
    *results, _ = ops.layer(
        weights.cell,
        x,
        h_0,
        c_0,
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
        reverse,
        training,
    )
    return results


def _run_plainly(
    weights: Weights, x: Tensor, h_0: Tensor, c_0: Tensor | None, starts: Tensor, lengths: Tensor, reverse: bool
) -> Sequence[Tensor]:
    """Do the same by torch's operations, as the operator knows neither ``torch.func`` nor forward derivatives."""
    state = x, h_0, c_0, weights.bias, weights.peephole
    kernels = weights.values, weights.offsets, weights.columns, weights.scales
    return plain.layer(weights.cell, *state, weights.roles, *kernels, starts, lengths, reverse)


def _is_traced(x: Tensor) -> bool:
    """Tell whether somebody looks at which operators run, or there may be no numbers at all."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) not in (Tensor, nn.Parameter)


def _batch_of(input: PackedSequence, hx: State | None) -> int:
    """Return the number of sequences; where a shape says it, it need not be read from a tensor, which ends a trace."""
    if input.sorted_indices is not None:
        return input.sorted_indices.shape[0]
    if hx is not None:
        return _parts(hx)[0].shape[1]
    return int(input.batch_sizes[0])


def _even(steps: int, batch: int) -> tuple[Tensor, Tensor]:
    """Return where the steps of sequences of one length begin, and their lengths."""
    return torch.arange(steps, device="cpu") * batch, torch.full((batch,), steps, device="cpu")


@lru_cache(maxsize=64)
def _even_kept(steps: int, batch: int) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # those of a call in inference mode could not be saved for a backward pass
        return _even(steps, batch)


def _initial(input: Tensor, hx: State | None, states: int, batch: int, sizes: Sequence[int]) -> list[Tensor]:
    if hx is None:
        return [input.new_zeros(states, batch, size) for size in sizes]
    return _parts(hx)


def _parts(hx: State) -> list[Tensor]:
    return list(hx) if isinstance(hx, tuple | list) else [hx]


def _as_given(state: list[Tensor]) -> State:
    return state[0] if len(state) == 1 else (state[0], state[1])
