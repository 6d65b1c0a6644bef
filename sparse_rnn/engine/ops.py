"""The kernels in C as operators of torch: they can be differentiated, traced, exported and compiled.

Where the kernels are not built the operator computes the same in torch's own operations. So does the backward pass on
CUDA; the forward pass there is in Triton, if that is installed.

N rows are packed as in :class:`torch.nn.utils.rnn.PackedSequence`; B sequences, longest first, T steps, I inputs, H
units, P outputs (H, or the size of a projection), S slots of a unit (the rows of its pre-activations; a GRU has 4, as
the candidate's part that comes from the state stands apart).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, List  # noqa: UP035 - PyTorch 2.6 reads no other spelling of a list of tensors

import torch
from torch import Tensor

from sparse_rnn.engine import plain
from sparse_rnn.engine.kernel_calls import (
    Sizes,
    contiguous,
    empty_gradients,
    filled,
    last_states,
    run_kernels,
    run_kernels_backwards,
)
from sparse_rnn.engine.library import library, warn_not_built


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
        size = Sizes(cell, x, h_0, c_0, starts).kept("hr" in roles.split()) if training else 0
        return *plain.layer(*arguments, starts, lengths, reverse), x.new_empty(size)
    out, h_n, c_n, kept = run_kernels(*arguments, starts, lengths, reverse, training)
    return out, h_n, c_n, kept if training else x.new_empty(0)


@layer.register_fake
def _(
    cell: str, x: Tensor, h_0: Tensor, c_0: Tensor | None, bias: Any, peephole: Any, roles: str, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    starts, *_, training = others[-4:]
    is_kept = training and x.device.type != "cuda"
    kept = Sizes(cell, x, h_0, c_0, starts).kept("hr" in roles.split()) if is_kept else 0
    return x.new_empty(x.shape[0], h_0.shape[1]), *last_states(h_0, c_0), x.new_empty(kept)


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


@layer_backward.register_fake
def _(cell: str, grad_out: Tensor, grad_h_n: Tensor, grad_c_n: Tensor | None, *others: Any) -> list[Tensor]:
    _, x, _, _, bias, peephole, _, values, *_, needs_x = others
    return empty_gradients(x, grad_h_n, grad_c_n, bias, peephole, values, needs_x)


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


layer.register_autograd(_backward, setup_context=_save)


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
