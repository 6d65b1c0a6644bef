"""The kernels in C as operators of torch: they can be differentiated, traced, exported and compiled.

Where the kernels are not built the operator computes the same in torch's own operations. So does the backward pass on
CUDA; the forward pass there is in Triton, if that is installed.

N rows are packed as in :class:`torch.nn.utils.rnn.PackedSequence`; B sequences, longest first, T steps, I inputs, H
units, P outputs (H, or the size of a projection), S slots of a unit (the rows of its pre-activations; a GRU has 4, as
the candidate's part that comes from the state stands apart).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, List  # noqa: UP035 - PyTorch 2.6 reads no other spelling of a list of tensors

import torch
from torch import Tensor

from sparse_rnn.engine import plain
from sparse_rnn.engine.library import (
    CELLS,
    ROLES,
    Call,
    KernelPointers,
    Strides,
    kernels,
    library,
    pointer,
    warn_not_built,
)
from sparse_rnn.engine.memory import scratch
from sparse_rnn.engine.pattern import transposed

WIDEST = 32
TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.int8: 3}


def slots_of_unit(cell: str) -> int:
    """Return how many pre-activations a unit has."""
    return 4 if cell in ("gru", "lstm") else 1


def slots(cell: str, role: str) -> tuple[int, ...]:
    """Return to which of a unit's slots the rows of a kernel add, in the order of the gates."""
    if role == "hr":
        return (0,)
    if cell == "gru":
        return (0, 1, 3) if role == "hh" else (0, 1, 2)
    return tuple(range(slots_of_unit(cell)))


@torch.library.custom_op("sparse_rnn::layer", mutates_args=(), device_types=("cpu", "cuda"))
def layer(
    cell: str,
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor | None,
    bias: Tensor | None,
    peephole: Tensor | None,
    roles: str,
    values: Sequence[Tensor],
    offsets: Sequence[Tensor],
    columns: Sequence[Tensor],
    blocks: Sequence[Tensor],
    scales: Sequence[Tensor],
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run a layer in one direction over whole sequences.

    Args:
        cell: ``rnn_tanh``, ``rnn_relu``, ``gru`` or ``lstm``.
        x: [N, I].
        h_0: [B, P].
        c_0: [B, H], of an LSTM.
        bias: [H, S].
        peephole: [3, H], of the input, forget and output gate, where the cell state is read unit by unit.
        roles: The kernels that there are, divided by spaces: ``ih``, ``hh``, ``ch`` (reads the whole cell state),
            ``hr`` (a projection).
        values: For each kernel its kept weights, in the order of its pattern.
        offsets: Of each pattern.
        columns: Of each pattern.
        blocks: Of each pattern, three after each other; none if they are to be found when they are needed.
        scales: For each kernel what to multiply the values of a row by, [rows]; none unless they are int8.
        starts: [T], int64, in which row each step begins; always on the CPU, as ``lengths`` is.
        lengths: [B], int64, falling.
        reverse: Whether each sequence is read from its end.
        training: Whether what a backward pass needs is to be kept.

    Returns:
        ``out`` [N, P], ``h_n`` [B, P], ``c_n`` [B, H] (empty if the cell has none), and what is kept.
    """
    _check_types(x, (h_0, c_0, bias, peephole), values)
    x, h_0, c_0, bias, peephole, *values = contiguous(x, h_0, c_0, bias, peephole, *values)
    arguments = cell, x, h_0, c_0, bias, peephole, roles.split(), values, offsets, columns, scales
    if x.is_cuda:
        return *_on_cuda()(*arguments, starts, lengths, reverse), x.new_empty(0)
    if library() is None:
        warn_not_built()
        size = _Sizes(cell, x, h_0, c_0, starts).kept("hr" in roles.split()) if training else 0
        return *plain.layer(*arguments, starts, lengths, reverse), x.new_empty(size)
    out, h_n, c_n, kept = run_kernels(*arguments, starts, lengths, reverse, training)
    return out, h_n, c_n, kept if training else x.new_empty(0)


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

    The arguments are those of :func:`layer`. Where all sequences are of one length x may be [T, B, I], with any strides
    of T and B, and ``out`` is [T, B, P].
    """
    sizes = _Sizes(cell, x, h_0, c_0, starts)
    kept = scratch(sizes.kept("hr" in roles), x)
    out = scratch(math.prod(x.shape[:-1]) * sizes.outputs, x).view(*x.shape[:-1], sizes.outputs)
    h_n, c_n = _last_states(h_0, c_0)
    call = _call(sizes, cell, x, h_0, c_0, bias, peephole, starts, lengths, reverse)
    call.x, call.x_strides = pointer(x), strides(x)
    _describe_kernels(call, roles, values, offsets, columns, scales, sizes)
    _place(call, sizes.places("hr" in roles), kept)
    if not training:
        call.gates = None
    call.out, call.h_n, call.c_n = pointer(out), pointer(h_n), pointer(c_n)
    kernels().forward(call)
    return out, h_n, c_n, kept


@layer.register_fake
def _(
    cell: str, x: Tensor, h_0: Tensor, c_0: Tensor | None, bias: Any, peephole: Any, roles: str, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    starts, *_, training = others[-4:]
    is_kept = training and x.device.type != "cuda"
    kept = _Sizes(cell, x, h_0, c_0, starts).kept("hr" in roles.split()) if is_kept else 0
    return x.new_empty(x.shape[0], h_0.shape[1]), *_last_states(h_0, c_0), x.new_empty(kept)


@torch.library.custom_op("sparse_rnn::layer_backward", mutates_args=(), device_types=("cpu", "cuda"))
def layer_backward(
    cell: str,
    grad_out: Tensor,
    grad_h_n: Tensor,
    grad_c_n: Tensor | None,
    kept: Tensor,
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor | None,
    bias: Tensor | None,
    peephole: Tensor | None,
    roles: str,
    values: Sequence[Tensor],
    offsets: Sequence[Tensor],
    columns: Sequence[Tensor],
    blocks: Sequence[Tensor],
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
    needs_x: bool,
) -> List[Tensor]:  # noqa: UP006 - as above
    """Return the gradients of x, h_0, c_0, bias, peephole and the values, in this order; empty where there is none.

    The arguments are those of :func:`layer`, its gradients, and what it kept.
    """
    if x.is_cuda or library() is None:
        given = [grad_out, grad_h_n] if grad_c_n is None else [grad_out, grad_h_n, grad_c_n]
        arguments = roles.split(), offsets, columns, starts, lengths, reverse
        return plain.layer_backward(cell, given, [x, h_0, c_0, bias, peephole, *values], needs_x, *arguments)
    grad_out, grad_h_n, grad_c_n, bias, peephole, *values = contiguous(
        grad_out, grad_h_n, grad_c_n, bias, peephole, *values
    )
    own = x, bias, peephole, roles.split(), values, offsets, columns, blocks
    return run_kernels_backwards(cell, grad_out, grad_h_n, grad_c_n, kept, *own, starts, lengths, reverse, needs_x)


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
    """Run the kernels in C backwards; see :func:`layer_backward`. All tensors are contiguous, but for x and grad_out.

    Those are as in :func:`run_kernels`; ``grad_out`` is None where it is 0.
    """
    sizes = _Sizes(cell, x, grad_h_n, grad_c_n, starts)
    gradients = _gradients(x, grad_h_n, grad_c_n, bias, peephole, values, needs_x)
    projected = "hr" in roles
    call = _call(sizes, cell, x, grad_h_n, grad_c_n, bias, peephole, starts, lengths, reverse)
    _describe_kernels(call, roles, values, offsets, columns, [], sizes)
    _place(call, sizes.places(projected), kept)
    found = list(blocks) or [
        tensor
        for role, own, read in zip(roles, offsets, columns, strict=True)
        for tensor in transposed(own, read, sizes.read_by(role), slots(cell, role), sizes.slots_of(role))
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


@layer_backward.register_fake
def _(cell: str, grad_out: Tensor, grad_h_n: Tensor, grad_c_n: Tensor | None, *others: Any) -> list[Tensor]:
    _, x, _, _, bias, peephole, _, values, *_, needs_x = others
    return _gradients(x, grad_h_n, grad_c_n, bias, peephole, values, needs_x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cell, x, h_0, c_0, bias, peephole, roles, *lists, starts, lengths, reverse, training = inputs
    values, offsets, columns, blocks, _ = lists
    if any(own.dtype != x.dtype for own in values):
        raise RuntimeError("Weights of 8 and 16 bits have no gradients: take float32 ones to train.")
    if not training:
        raise RuntimeError("There are no gradients of a layer that was not told to keep what they need.")
    # Or else autograd would fill a tensor as large as what is kept with zeros, only to have a gradient of it.
    ctx.set_materialize_grads(False)
    ctx.cell, ctx.roles, ctx.reverse, ctx.blocks = cell, roles, reverse, len(blocks)
    tensors = output[3], x, h_0, c_0, bias, peephole, starts, lengths
    ctx.save_for_backward(*tensors, *values, *offsets, *columns, *blocks)


def _backward(
    ctx: Any, grad_out: Tensor | None, grad_h_n: Tensor | None, grad_c_n: Tensor | None, _: None
) -> tuple[Any, ...]:
    kept, x, h_0, c_0, bias, peephole, starts, lengths, *lists = ctx.saved_tensors
    grad_out = x.new_zeros(x.shape[0], h_0.shape[1]) if grad_out is None else grad_out
    grad_h_n, grad_c_n = filled(grad_h_n, grad_c_n, h_0, c_0)
    count = len(ctx.roles.split())
    values, offsets, columns = (lists[i * count : (i + 1) * count] for i in range(3))
    needs_x = ctx.needs_input_grad[1]
    inputs = (x, h_0, c_0, bias, peephole)
    if torch.is_grad_enabled():  # somebody differentiates the gradients, which the kernels do not
        gradients = [grad_out, grad_h_n, *(() if grad_c_n is None else (grad_c_n,))]
        pattern = (ctx.roles.split(), offsets, columns, starts, lengths, ctx.reverse)
        found = plain.layer_backward(ctx.cell, gradients, [*inputs, *values], needs_x, *pattern)
    else:
        given = (ctx.cell, grad_out, grad_h_n, grad_c_n, kept, *inputs, ctx.roles)
        blocks = lists[3 * count :]
        found = layer_backward(*given, values, offsets, columns, blocks, starts, lengths, ctx.reverse, needs_x)
    grad_x, grad_h_0, grad_c_0, grad_bias, grad_peephole, *grad_values = found
    return (
        None,
        grad_x if needs_x else None,
        grad_h_0,
        None if c_0 is None else grad_c_0,
        None if bias is None else grad_bias,
        None if peephole is None else grad_peephole,
        None,
        grad_values,
        [None] * count,
        [None] * count,
        [None] * ctx.blocks,
        [],
        None,
        None,
        None,
        None,
    )


def filled(
    grad_h_n: Tensor | None, grad_c_n: Tensor | None, h_0: Tensor, c_0: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of the last states, 0 where there is none of a state that there is."""
    grad_h_n = torch.zeros_like(h_0) if grad_h_n is None else grad_h_n
    if c_0 is None:
        return grad_h_n, None
    return grad_h_n, torch.zeros_like(c_0) if grad_c_n is None else grad_c_n


layer.register_autograd(_backward, setup_context=_save)


class _Sizes:
    """How many numbers the tensors of a call have."""

    def __init__(self, cell: str, x: Tensor, h: Tensor, c: Tensor | None, starts: Tensor) -> None:
        self.batch, self.outputs = h.shape
        self.units = self.outputs if c is None else c.shape[1]
        self.inputs, self.steps, self.has_c = x.shape[-1], starts.shape[0], c is not None
        self.slots = slots_of_unit(cell)
        self.lanes = (self.batch + WIDEST - 1) // WIDEST * WIDEST

    def read_by(self, role: str) -> int:
        """Return how many inputs a kernel has."""
        return {"ih": self.inputs, "hh": self.outputs}.get(role, self.units)

    def slots_of(self, role: str) -> int:
        """Return how many slots a row block of a kernel adds to."""
        return 1 if role == "hr" else self.slots

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


def _on_cuda() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    # Triton takes long to import, and is for CUDA alone.
    from sparse_rnn.engine import triton_kernels

    return triton_kernels.layer if triton_kernels.available() else plain.layer


def _check_types(x: Tensor, others: Sequence[Tensor | None], values: Sequence[Tensor]) -> None:
    """Refuse what the kernels would misread, as they are given addresses alone."""
    if x.dtype not in (torch.float32, torch.float64):
        raise RuntimeError(f"The sparse engine computes in float32 or float64, and the input is {x.dtype}.")
    if any(tensor is not None and tensor.dtype != x.dtype for tensor in others):
        raise RuntimeError(f"The states, biases and peepholes must be {x.dtype}, as the input is.")
    compressed = (torch.bfloat16, torch.int8) if x.dtype == torch.float32 else ()
    if any(own.dtype not in (x.dtype, *compressed) for own in values):
        raise RuntimeError(f"The weights do not fit an input that is {x.dtype}.")
    if len({own.dtype for own in values}) > 1:
        raise RuntimeError("The kernels of a layer must be of one type.")


def contiguous(*tensors: Any) -> list[Any]:
    """Return the tensors without gaps, as the kernels read them; None for none."""
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _last_states(h_0: Tensor, c_0: Tensor | None) -> tuple[Tensor, Tensor]:
    return h_0.new_empty(h_0.shape), h_0.new_empty((h_0.shape[0], 0) if c_0 is None else c_0.shape)


def _gradients(
    x: Tensor,
    h: Tensor,
    c: Tensor | None,
    bias: Tensor | None,
    peephole: Tensor | None,
    values: Sequence[Tensor],
    needs_x: bool,
) -> list[Tensor]:
    inputs = (x if needs_x else None, h, c, bias, peephole, *values)
    return [x.new_empty(0 if tensor is None else tensor.shape) for tensor in inputs]


def _call(
    sizes: _Sizes,
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


def _describe_kernels(
    call: Call,
    roles: Sequence[str],
    values: Sequence[Tensor],
    offsets: Sequence[Tensor],
    columns: Sequence[Tensor],
    scales: Sequence[Tensor],
    sizes: _Sizes,
) -> None:
    for index, role in enumerate(roles):
        call.kernels[ROLES.index(role)] = KernelPointers(
            offsets=pointer(offsets[index]),
            columns=pointer(columns[index]),
            values=pointer(values[index]),
            scales=pointer(scales[index]) if scales else None,
            inputs=sizes.read_by(role),
            type=TYPES[values[index].dtype],
            kept=values[index].shape[0],
        )


def _place(call: Call, sizes: dict[str, int], memory: Tensor) -> None:
    """Give each of some arrays its part of a tensor."""
    at = memory.data_ptr()
    for name, size in sizes.items():
        setattr(call, name, at if size else None)
        at += size * memory.element_size()
