"""What the kernels in C compute, in torch's operations: for where they are not built, and to compare them with.

A step's equations are those of :mod:`sparse_rnn.recurrent.cells`; for the arguments see :mod:`sparse_rnn.engine.ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from sparse_rnn.process_settings import csr_in_beta
from sparse_rnn.recurrent import cells
from sparse_rnn.torch_compat import differentiates_forward

_STEPS = {
    "rnn_tanh": cells.rnn_tanh_step,
    "rnn_relu": cells.rnn_relu_step,
    "gru": cells.gru_step,
    "lstm": cells.lstm_step,
}


def layer(
    cell: str,
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor | None,
    bias: Tensor | None,
    peephole: Tensor | None,
    roles: Sequence[str],
    values: Sequence[Tensor],
    offsets: Sequence[Tensor],
    columns: Sequence[Tensor],
    scales: Sequence[Tensor],
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a layer in one direction over whole sequences, and return ``out``, ``h_n`` and ``c_n``.

    Where gradients are wanted the kernels are dense matrices, as torch's sparse ones would give dense gradients slowly.
    """
    read_by = {"ih": x.shape[1], "hh": h_0.shape[1]}
    units = h_0.shape[1] if c_0 is None else c_0.shape[1]
    kernels = {}
    for index, role in enumerate(roles):
        scale = scales[index] if scales else None
        own = _reals(values[index], offsets[index], scale, x.dtype)
        kernels[role] = _matrix(own, offsets[index], columns[index], read_by.get(role, units))
    biases = _biases(cell, bias)

    def pre_activations(role: str, read: Tensor) -> Tensor:
        """Multiply by a kernel, whose rows are ordered by unit; the result [N, G·H] is ordered by gate."""
        with torch.autocast(read.device.type, enabled=False):
            product = (kernels[role] @ read.t()).t()
        ordered = product if role == "hr" else product.unflatten(1, (units, -1)).transpose(1, 2).flatten(1)
        return ordered + biases[role] if role in biases else ordered

    def project(**reads: Tensor) -> Tensor:
        return reduce(
            torch.add, [read if role == "ih" else pre_activations(role, read) for role, read in reads.items()]
        )

    x = pre_activations("ih", x)  # of all steps at once
    step = _step(cell, peephole, roles)
    state: tuple[Tensor, ...] = (h_0,) if c_0 is None else (h_0, c_0)
    rows, outputs = [own.to(x.device) for own in _rows(starts, lengths, reverse)], []
    for own in rows:
        running = len(own)
        new = step(project, x.index_select(0, own), tuple(part[:running] for part in state))
        state = tuple(torch.cat((part, before[running:])) for part, before in zip(new, state, strict=True))
        outputs.append(new[0])
    out = torch.cat(outputs).index_select(0, torch.cat(rows).argsort())
    return out, state[0], x.new_empty(len(h_0), 0) if c_0 is None else state[1]


def layer_backward(
    cell: str,
    gradients: Sequence[Tensor],
    inputs: Sequence[Tensor | None],
    needs_x: bool,
    roles: Sequence[str],
    offsets: Sequence[Tensor],
    columns: Sequence[Tensor],
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
) -> list[Tensor]:
    """Return the gradients of the inputs x, h_0, c_0, bias, peephole and the values, empty where there is none.

    The layer is run once more, so that nothing is kept for this meanwhile. ``gradients`` are those of ``out``, ``h_n``
    and, of a cell that has it, ``c_n``; ``inputs`` are x, h_0, c_0, bias, peephole and the values.
    """
    wanted = [tensor is not None and (needs_x or index > 0) for index, tensor in enumerate(inputs)]

    def run(*changing: Tensor) -> tuple[Tensor, ...]:
        given = iter(changing)
        arguments: list[Any] = [
            next(given) if is_wanted else tensor for tensor, is_wanted in zip(inputs, wanted, strict=True)
        ]
        x, h_0, c_0, bias, peephole, *values = arguments
        results = layer(
            cell, x, h_0, c_0, bias, peephole, roles, values, offsets, columns, (), starts, lengths, reverse
        )  # fmt: skip
        return results[: len(gradients)]

    # Not by backward(), which does not work inside an operator.
    given = (tensor for tensor, is_wanted in zip(inputs, wanted, strict=True) if is_wanted)
    backward: Any = torch.func.vjp(run, *given)[1]
    found = iter(backward(tuple(gradients)))
    return [next(found) if is_wanted else gradients[0].new_empty(0) for is_wanted in wanted]


def _step(cell: str, peephole: Tensor | None, roles: Sequence[str]) -> Callable[..., tuple[Tensor, ...]]:
    if peephole is not None:
        return partial(cells.diagonal_peephole_lstm_step, peephole=peephole)
    if "ch" in roles:
        return cells.peephole_lstm_step
    return cells.projected_lstm_step if "hr" in roles else _STEPS[cell]


def _biases(cell: str, bias: Tensor | None) -> dict[str, Tensor]:
    """Give each kernel the biases [G·H] of the slots that it is the first to add to."""
    if bias is None:
        return {}
    if cell != "gru":
        return {"ih": bias.t().flatten()}
    r, z, n_x, n_h = bias.unbind(1)
    none = torch.zeros_like(r)
    return {"ih": torch.cat((r, z, n_x)), "hh": torch.cat((none, none, n_h))}


def _rows(starts: Tensor, lengths: Tensor, reverse: bool) -> list[Tensor]:
    """List, for each step, the rows of the sequences that are not over, the longest first."""
    sequences = torch.arange(len(lengths), device=lengths.device)
    rows = []
    for step in range(len(starts)):
        own = lengths[lengths > step]
        at = own - 1 - step if reverse else torch.full_like(own, step)
        rows.append(starts[at] + sequences[: len(own)])
    return rows


def _reals(values: Tensor, offsets: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    values = values.to(dtype)
    return values if scale is None else values * scale.repeat_interleave(offsets.diff())


def _matrix(values: Tensor, offsets: Tensor, columns: Tensor, inputs: int) -> Tensor:
    rows = len(offsets) - 1
    if torch.is_grad_enabled() or differentiates_forward():
        places = torch.arange(rows, device=offsets.device).repeat_interleave(offsets.diff()) * inputs + columns.long()
        return values.new_zeros(rows * inputs).index_put((places,), values).view(rows, inputs)
    with csr_in_beta():
        return torch.sparse_csr_tensor(offsets, columns.int(), values, (rows, inputs), check_invariants=False)
