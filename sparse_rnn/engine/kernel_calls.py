"""Runs the kernels in C on tensors: describes a call for them, and makes room for what they write.

For the shapes see :mod:`sparse_rnn.engine.ops`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparse_rnn.engine.library import CELLS, ROLES, TYPES, WIDEST, Call, Strides, describe_kernels, kernels, pointer
from sparse_rnn.engine.memory import scratch
from sparse_rnn.engine.pattern import transposed
from sparse_rnn.engine.slots import slots, slots_of_unit, slots_there


def run_kernels(
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
    training: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the kernels in C forwards. All tensors are contiguous, but for x.

    The arguments are those of :func:`sparse_rnn.engine.ops.layer`. Where all sequences are of one length x may be
    [T, B, I], with any strides of T and B, and ``out`` is [T, B, P].
    """
    sizes = Sizes(cell, x, h_0, c_0, starts)
    kept = scratch(sizes.kept("hr" in roles), x)
    out = scratch(math.prod(x.shape[:-1]) * sizes.outputs, x).view(*x.shape[:-1], sizes.outputs)
    h_n, c_n = last_states(h_0, c_0)
    call = _call(sizes, cell, x, h_0, c_0, bias, peephole, starts, lengths, reverse)
    call.x, call.x_strides = pointer(x), strides(x)
    describe_kernels(call, roles, values, offsets, columns, scales, sizes.read_by(roles))
    _place(call, sizes.places("hr" in roles), kept)
    if not training:
        call.gates = None
    call.out, call.h_n, call.c_n = pointer(out), pointer(h_n), pointer(c_n)
    kernels().forward(call)
    return out, h_n, c_n, kept


def run_kernels_backwards(
    cell: str,
    grad_out: Tensor | None,
    grad_h_n: Tensor,
    grad_c_n: Tensor | None,
    kept: Tensor,
    x: Tensor,
    bias: Tensor | None,
    peephole: Tensor | None,
    roles: Sequence[str],
    values: Sequence[Tensor],
    offsets: Sequence[Tensor],
    columns: Sequence[Tensor],
    blocks: Sequence[Tensor],
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
    needs_x: bool,
) -> list[Tensor]:
    """Run the kernels in C backwards. All tensors are contiguous, but for x and grad_out.

    The arguments are those of :func:`sparse_rnn.engine.ops.layer_backward`. x and grad_out are as in
    :func:`run_kernels`; ``grad_out`` is None where it is 0.
    """
    sizes = Sizes(cell, x, grad_h_n, grad_c_n, starts)
    gradients = empty_gradients(x, grad_h_n, grad_c_n, bias, peephole, values, needs_x)
    projected = "hr" in roles
    call = _call(sizes, cell, x, grad_h_n, grad_c_n, bias, peephole, starts, lengths, reverse)
    inputs = sizes.read_by(roles)
    describe_kernels(call, roles, values, offsets, columns, [], inputs)
    _place(call, sizes.places(projected), kept)
    found = list(blocks) or [
        tensor
        for role, own, read, size in zip(roles, offsets, columns, inputs, strict=True)
        for tensor in transposed(own, read, size, slots(cell, role), slots_there(cell, role))
    ]
    grad_x, grad_h_0, grad_c_0, grad_bias, grad_peephole, *grad_values = gradients
    block_values = [scratch(len(own), own) for own in values]
    for index, role in enumerate(roles):
        kernel = call.kernels[ROLES.index(role)]
        kernel.block_offsets, kernel.block_rows, kernel.block_order = map(pointer, found[3 * index : 3 * index + 3])
        kernel.block_values, kernel.gradient = pointer(block_values[index]), pointer(grad_values[index])
    working = scratch(sizes.scratch(projected, needs_x, call.threads), x)
    _place(call, sizes.scratch_places(projected, needs_x, call.threads), working)
    if grad_out is not None:
        call.grad_out, call.grad_out_strides = pointer(grad_out), strides(grad_out)
    call.grad_h_n, call.grad_c_n = pointer(grad_h_n), pointer(grad_c_n)
    call.grad_x = pointer(grad_x) if needs_x else None
    call.grad_h_0, call.grad_c_0 = pointer(grad_h_0), pointer(grad_c_0)
    call.grad_bias = None if bias is None else pointer(grad_bias)
    call.grad_peephole = None if peephole is None else pointer(grad_peephole)
    kernels().backward(call)
    return gradients


def strides(rows: Tensor) -> Strides:
    """Describe for C how [T, B, size], or packed rows, lie in memory; the numbers of a row are side by side."""
    return Strides(step=0 if rows.dim() == 2 else rows.stride(0), sequence=rows.stride(-2))


def filled(
    grad_h_n: Tensor | None, grad_c_n: Tensor | None, h_0: Tensor, c_0: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of the last states, 0 where there is none of a state that there is."""
    grad_h_n = torch.zeros_like(h_0) if grad_h_n is None else grad_h_n
    if c_0 is None:
        return grad_h_n, None
    return grad_h_n, torch.zeros_like(c_0) if grad_c_n is None else grad_c_n


def contiguous(*tensors: Any) -> list[Any]:
    """Return the tensors without gaps, as the kernels read them; None for none."""
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def last_states(h_0: Tensor, c_0: Tensor | None) -> tuple[Tensor, Tensor]:
    """Make room for the last states; the second is empty where there is no cell state."""
    return h_0.new_empty(h_0.shape), h_0.new_empty((h_0.shape[0], 0) if c_0 is None else c_0.shape)


def empty_gradients(
    x: Tensor,
    h: Tensor,
    c: Tensor | None,
    bias: Tensor | None,
    peephole: Tensor | None,
    values: Sequence[Tensor],
    needs_x: bool,
) -> list[Tensor]:
    """Make room for the gradients of x, h_0, c_0, bias, peephole and the values; empty where there is none."""
    inputs = (x if needs_x else None, h, c, bias, peephole, *values)
    return [x.new_empty(0 if tensor is None else tensor.shape) for tensor in inputs]


class Sizes:
    """How many numbers the tensors of a call have."""

    def __init__(self, cell: str, x: Tensor, h: Tensor, c: Tensor | None, starts: Tensor) -> None:
        self.batch, self.outputs = h.shape
        self.units = self.outputs if c is None else c.shape[1]
        self.inputs, self.steps, self.has_c = x.shape[-1], starts.shape[0], c is not None
        self.slots = slots_of_unit(cell)
        self.lanes = (self.batch + WIDEST - 1) // WIDEST * WIDEST

    def read_by(self, roles: Sequence[str]) -> list[int]:
        """Return how many inputs each kernel has."""
        others = {"ih": self.inputs, "hh": self.outputs}
        return [others.get(role, self.units) for role in roles]

    def places(self, projected: bool) -> dict[str, int]:
        """Return the sizes of what is kept for the backward pass, by name."""
        lanes, steps = self.lanes, self.steps
        return {
            "inputs_kept": lanes * steps * self.inputs,
            "h": lanes * (steps + 1) * self.outputs,
            "c": lanes * (steps + 1) * self.units if self.has_c else 0,
            "gates": lanes * steps * (self.units + WIDEST - 1) * self.slots,
            "unprojected": lanes * steps * self.units if projected else 0,
        }

    def kept(self, projected: bool) -> int:
        """Return the size of all of it."""
        return sum(self.places(projected).values())

    def scratch_places(self, projected: bool, needs_x: bool, threads: int) -> dict[str, int]:
        """Return the sizes of what the backward pass works with."""
        lanes, steps = self.lanes, self.steps
        return {
            "slopes": lanes * steps * self.units * self.slots,
            "grad_states": lanes * (2 * self.units + 3 * self.outputs),
            "input_scratch": threads * self.inputs * WIDEST if needs_x else 0,
            "projected": lanes * steps * self.outputs if projected else 0,
        }

    def scratch(self, projected: bool, needs_x: bool, threads: int) -> int:
        """Return the size of all of it."""
        return sum(self.scratch_places(projected, needs_x, threads).values())


def _call(
    sizes: Sizes,
    cell: str,
    x: Tensor,
    h: Tensor,
    c: Tensor | None,
    bias: Tensor | None,
    peephole: Tensor | None,
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
) -> Call:
    call = Call(cell=CELLS.index(cell), type=TYPES[x.dtype], threads=torch.get_num_threads(), reverse=reverse)
    call.steps, call.batch, call.inputs = sizes.steps, sizes.batch, sizes.inputs
    call.units, call.outputs = sizes.units, sizes.outputs
    call.even, call.starts, call.lengths = x.dim() == 3, pointer(starts), pointer(lengths)
    call.bias, call.peephole = pointer(bias), pointer(peephole)
    call.h_0, call.c_0 = pointer(h), pointer(c)
    return call


def _place(call: Call, sizes: dict[str, int], memory: Tensor) -> None:
    """Give each of some arrays its part of a tensor."""
    at = memory.data_ptr()
    for name, size in sizes.items():
        setattr(call, name, at if size else None)
        at += size * memory.element_size()
