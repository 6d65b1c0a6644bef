"""The forward pass on CUDA, in Triton: one launch computes a step, gates and all, over the weights that are kept.

A program has a block of rows, those of a unit's gates side by side, and a block of the batch. Its sums stay in
registers, and from them it computes the states of its units: no pre-activation is written to memory.

It reads the arrays that the kernels in C read. The rows of a block are gone through together, to the end of the
longest, several weights of each at a time. Sliced ELL would pad them to one length in memory, but hold all weights
twice, and its copy would have to follow whatever is loaded into the layer.

The sizes of the blocks have not been tuned on a device. Nothing here captures the launches of the steps in a CUDA
graph. A caller can: of sequences of one length nothing is copied to the device.

T steps, B sequences, I inputs, H units, P outputs, S slots of a unit; see :mod:`sparse_rnn.engine.ops`. What a kernel
reads and writes is [units, B], so that neighbours in memory are multiplied by the same weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparse_rnn.engine.slots import slots, slots_of_unit

try:
    import triton
    import triton.language as tl
except ImportError:  # it comes with torch for CUDA
    triton = tl = None

# Of a program: its rows, the most sequences, and how many products of each row it computes at a time.
ROWS, WIDEST, LANES = 32, 16, 32


def available() -> bool:
    """Tell whether Triton is installed."""
    return triton is not None


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
    """Do the same as :func:`sparse_rnn.engine.plain.layer`; starts and lengths are in the CPU's memory."""
    steps, batch = len(starts), len(lengths)
    even = bool((lengths == steps).all())
    x = x.contiguous()
    if even:
        x_TBI = x.view(steps, batch, x.shape[1])
    else:
        rows, places = _padding(starts, lengths, reverse)
        x_TBI = x[rows.to(x.device)]
    x_TIB = x_TBI.transpose(1, 2).contiguous()
    out_TBP = x.new_empty(steps, batch, h_0.shape[1])
    step = _Step(cell, bias, peephole, roles, values, offsets, columns, scales)
    running = (lengths > torch.arange(steps, device="cpu").unsqueeze(1)).sum(1).tolist()
    state = _turned(h_0), None if c_0 is None else _turned(c_0)
    new = torch.empty_like(state[0]), None if state[1] is None else torch.empty_like(state[1])
    with torch.cuda.device_of(x):
        for index in range(steps):
            at = steps - 1 - index if even and reverse else index
            step(x_TIB[at], state, new, out_TBP[at], running[index])
            state, new = new, state
    out = out_TBP.flatten(0, 1)
    h_n, c_n = (x.new_empty(0, batch) if part is None else part for part in state)
    return out if even else out[places.to(x.device)], h_n.t().contiguous(), c_n.t().contiguous()


def _padding(starts: Tensor, lengths: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Return which row a sequence reads in a step [T, B], any once it is over; and where each row is among these."""
    steps, sequences = torch.arange(len(starts), device="cpu").unsqueeze(1), torch.arange(len(lengths), device="cpu")
    runs = steps < lengths
    rows = torch.where(runs, starts[(lengths - 1 - steps).clamp(min=0) if reverse else steps] + sequences, 0)
    return rows, runs.flatten().nonzero().squeeze(1)[rows[runs].argsort()]


def _turned(state: Tensor) -> Tensor:
    """Return a copy [units, B], which may be written to."""
    return state.t().clone(memory_format=torch.contiguous_format)


class _Step:
    """Steps of a layer with given weights."""

    def __init__(
        self,
        cell: str,
        bias: Tensor | None,
        peephole: Tensor | None,
        roles: Sequence[str],
        values: Sequence[Tensor],
        offsets: Sequence[Tensor],
        columns: Sequence[Tensor],
        scales: Sequence[Tensor],
    ) -> None:
        self._kernels: dict[str, tuple[Any, ...]] = dict.fromkeys(("ih", "hh", "ch", "hr"), (None,) * 4)
        for index, role in enumerate(roles):
            self._kernels[role] = values[index], scales[index] if scales else None, offsets[index], columns[index]
        self._cell, self._bias, self._peephole = cell, bias, peephole
        self._units = (len(offsets[0]) - 1) // len(slots(cell, roles[0]))
        self._projected = "hr" in roles

    def __call__(
        self,
        x_IB: Tensor,
        state: tuple[Tensor, Tensor | None],
        new: tuple[Tensor, Tensor | None],
        out_BP: Tensor,
        running: int,
    ) -> None:
        """Compute the new state and the outputs; those of sequences that are over, behind the running ones, stay."""
        batch = x_IB.shape[1]
        block = min(triton.next_power_of_2(max(batch, 1)), WIDEST)
        sizes = {"running": running, "batch": batch, "ROWS": ROWS, "BATCH": block, "LANES": LANES // block}
        unprojected = x_IB.new_empty(self._units, batch) if self._projected else new[0]
        of_unit = slots_of_unit(self._cell)
        _compute[triton.cdiv(self._units, ROWS // of_unit), triton.cdiv(batch, block)](
            *(tensor for role in ("ih", "hh", "ch") for tensor in self._kernels[role]),
            self._bias,
            self._peephole,
            x_IB,
            *state,
            unprojected,
            new[1],
            None if self._projected else out_BP,
            units=self._units,
            CELL=self._cell,
            SLOTS=of_unit,
            **sizes,
        )
        if self._projected:
            outputs = out_BP.shape[1]
            _project[triton.cdiv(outputs, ROWS), triton.cdiv(batch, block)](
                *self._kernels["hr"], unprojected, state[0], new[0], out_BP, outputs=outputs, **sizes
            )


def _jit(function: Callable[..., Any]) -> Any:
    return triton.jit(function) if available() else function


@_jit
def _add(sums, values, scales, offsets, columns, read, row, exists, sequence, running, batch, LANES: tl.constexpr):
    """Add the products of rows of a kernel with what it reads to sums [ROWS, LANES, BATCH]."""
    begin = tl.load(offsets + row, mask=exists, other=0)
    end = tl.load(offsets + row + 1, mask=exists, other=0)
    if scales is not None:
        scale = tl.load(scales + row, mask=exists, other=0)[:, None]
    for first in range(0, tl.max(end - begin, 0), LANES):
        place = begin[:, None] + first + tl.arange(0, LANES)[None, :]
        kept = place < end[:, None]
        column = tl.load(columns + place, mask=kept, other=0).to(tl.int64)
        value = tl.load(values + place, mask=kept, other=0).to(sums.dtype)
        if scales is not None:
            value *= scale
        # What is read is masked too: an absent weight times a state that is infinite would be no number.
        number = tl.load(
            read + (column * batch)[:, :, None] + sequence[None, None, :],
            mask=kept[:, :, None] & (sequence < running)[None, None, :],
            other=0,
        )
        sums += value[:, :, None] * number
    return sums


@_jit
def _slot(sums, slot, index: tl.constexpr):
    """Take one slot of each unit [UNITS, BATCH] out of sums [UNITS, SLOTS, BATCH]."""
    return tl.sum(tl.where(slot[None, :, None] == index, sums, 0), 1)


@_jit
def _tanh(x):
    """Compute tanh, to within 1e-7: Triton has it in libraries of devices only, and not under this name in all."""
    return 2 * tl.sigmoid(2 * x) - 1


@_jit
def _compute(
    ih_values, ih_scales, ih_offsets, ih_columns,
    hh_values, hh_scales, hh_offsets, hh_columns,
    ch_values, ch_scales, ch_offsets, ch_columns,
    bias, peephole, x, h, c, new_h, new_c, out, running, batch, units,
    CELL: tl.constexpr, SLOTS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    """Compute the states of a block of units and sequences; without out, the states are yet to be projected."""
    UNITS: tl.constexpr = ROWS // SLOTS
    sequence = tl.program_id(1) * BATCH + tl.arange(0, BATCH)
    row = tl.arange(0, ROWS)
    unit, slot = tl.program_id(0) * UNITS + row // SLOTS, row % SLOTS
    real = unit < units
    sums = tl.zeros((ROWS, LANES, BATCH), x.dtype.element_ty)
    if (
        CELL == "gru"
    ):  # the candidate has a slot for what comes from the input, 2, and one for what comes from the state
        sums = _add(
            sums, ih_values, ih_scales, ih_offsets, ih_columns, x,
            unit * 3 + slot, real & (slot < 3), sequence, running, batch, LANES,
        )  # fmt: skip
        sums = _add(
            sums, hh_values, hh_scales, hh_offsets, hh_columns, h,
            unit * 3 + tl.minimum(slot, 2), real & (slot != 2), sequence, running, batch, LANES,
        )  # fmt: skip
    else:
        place = unit * SLOTS + slot
        sums = _add(
            sums, ih_values, ih_scales, ih_offsets, ih_columns, x, place, real, sequence, running, batch, LANES
        )  # fmt: skip
        sums = _add(
            sums, hh_values, hh_scales, hh_offsets, hh_columns, h, place, real, sequence, running, batch, LANES
        )  # fmt: skip
        if ch_offsets is not None:
            sums = _add(
                sums, ch_values, ch_scales, ch_offsets, ch_columns, c, place, real, sequence, running, batch, LANES
            )  # fmt: skip
    total = tl.sum(sums, 1)
    if bias is not None:
        total += tl.load(bias + unit * SLOTS + slot, mask=real, other=0)[:, None]
    total = tl.reshape(total, (UNITS, SLOTS, BATCH))
    slot = tl.arange(0, SLOTS)
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    inside = (unit < units)[:, None] & (sequence < batch)[None, :]
    runs = inside & (sequence < running)[None, :]
    place = unit[:, None] * batch + sequence[None, :]
    if CELL == "lstm":
        before = tl.load(c + place, mask=inside, other=0)
        to_i, to_f, to_o = _slot(total, slot, 0), _slot(total, slot, 1), _slot(total, slot, 3)
        if peephole is not None:
            to_i += tl.load(peephole + unit, mask=unit < units, other=0)[:, None] * before
            to_f += tl.load(peephole + units + unit, mask=unit < units, other=0)[:, None] * before
        cell = tl.sigmoid(to_f) * before + tl.sigmoid(to_i) * _tanh(_slot(total, slot, 2))
        if peephole is not None:
            to_o += tl.load(peephole + 2 * units + unit, mask=unit < units, other=0)[:, None] * cell
        state = tl.sigmoid(to_o) * _tanh(cell)
        tl.store(new_c + place, tl.where(runs, cell, before), mask=inside)
    elif CELL == "gru":
        r, z = tl.sigmoid(_slot(total, slot, 0)), tl.sigmoid(_slot(total, slot, 1))
        n = _tanh(_slot(total, slot, 2) + r * _slot(total, slot, 3))
        state = n + z * (tl.load(h + place, mask=inside, other=0) - n)
    else:
        state = _slot(total, slot, 0)
        state = _tanh(state) if CELL == "rnn_tanh" else tl.where(state < 0, 0, state)
    if out is not None:
        state = tl.where(runs, state, tl.load(h + place, mask=inside & ~runs, other=0))
        tl.store(out + sequence[None, :] * units + unit[:, None], state, mask=inside)
    tl.store(new_h + place, state, mask=inside)


@_jit
def _project(
    values, scales, offsets, columns, read, h, new_h, out, running, batch, outputs,
    ROWS: tl.constexpr, LANES: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    """Compute a block of the outputs from what the units give."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sequence = tl.program_id(1) * BATCH + tl.arange(0, BATCH)
    sums = tl.zeros((ROWS, LANES, BATCH), read.dtype.element_ty)
    sums = _add(sums, values, scales, offsets, columns, read, row, row < outputs, sequence, running, batch, LANES)
    inside = (row < outputs)[:, None] & (sequence < batch)[None, :]
    runs = inside & (sequence < running)[None, :]
    place = row[:, None] * batch + sequence[None, :]
    state = tl.where(runs, tl.sum(sums, 1), tl.load(h + place, mask=inside & ~runs, other=0))
    tl.store(out + sequence[None, :] * outputs + row[:, None], state, mask=inside)
    tl.store(new_h + place, state, mask=inside)
