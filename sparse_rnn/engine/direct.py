"""Calls the kernels in C without torch's operators, whose dispatch takes longer than a step of a small layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparse_rnn.engine import plain
from sparse_rnn.engine.kernel_calls import contiguous, filled, run_kernels, run_kernels_backwards, strides
from sparse_rnn.engine.library import TYPES, WIDEST, Call, kernels
from sparse_rnn.engine.weights import Layers, Weights
from sparse_rnn.torch_compat import version_of


def run_directly(
    layers: Layers, x: Tensor, starts: Tensor, lengths: Tensor, state: Sequence[Tensor], dropout: float, training: bool
) -> tuple[Tensor, list[Tensor]]:
    """Do the same as :func:`~sparse_rnn.engine.sequences.run_layers`, where nothing is traced.

    With ``training`` the results can be differentiated.
    """
    state = [part.contiguous() for part in state]
    last = [torch.empty_like(part) for part in state] if not training else []
    new: list[Sequence[Tensor]] = []
    index = 0
    for depth, directions in enumerate(layers):
        x = x if x.stride(-1) == 1 else x.contiguous()
        outputs = []
        for reverse, weights in enumerate(directions):
            if training:
                out, *states = _differentiable(weights, x, starts, lengths, [part[index] for part in state], reverse)
                new.append(states)
            else:
                out = _run(weights, x, starts, lengths, state, last, index, reverse)
            outputs.append(out)
            index += 1
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        if dropout > 0 and depth + 1 < len(layers):
            x = F.dropout(x, dropout)
    return x, last if not training else [torch.stack(parts) for parts in zip(*new, strict=True)]


def _run(
    weights: Weights,
    x: Tensor,
    starts: Tensor,
    lengths: Tensor,
    state: Sequence[Tensor],
    last: Sequence[Tensor],
    index: int,
    reverse: int,
) -> Tensor:
    """Run a layer in one direction from the states at an index; write those at the same index of the last ones."""
    (*rows, inputs), steps, batch = x.shape, starts.shape[0], lengths.shape[0]
    units, outputs, size = weights.units, weights.outputs, x.element_size()
    out = x.new_empty(*rows, outputs)
    constant = weights.one_sequence.constant(weights, inputs) if batch == 1 else weights.constant
    call = Call.from_buffer_copy(constant)  # its own one, as other threads may call the layer meanwhile
    call.type, call.threads, call.reverse = TYPES[x.dtype], torch.get_num_threads(), reverse
    call.steps, call.batch, call.inputs = steps, batch, inputs
    call.even, call.starts, call.lengths = len(rows) == 2, starts.data_ptr(), lengths.data_ptr()
    call.x, call.x_strides, call.out = x.data_ptr(), strides(x), out.data_ptr()
    at = index * batch * outputs * size
    call.h_0, call.h_n = state[0].data_ptr() + at, last[0].data_ptr() + at
    scratch = {"inputs_kept": steps * inputs, "h": (steps + 1) * outputs}
    if len(state) == 2:
        at = index * batch * units * size
        call.c_0, call.c_n = state[1].data_ptr() + at, last[1].data_ptr() + at
        scratch["c"] = (steps + 1) * units
    if "hr" in weights.roles:
        scratch["unprojected"] = steps * units
    lanes = 1 if batch == 1 else -(-batch // WIDEST) * WIDEST
    memory = x.new_empty(lanes * sum(scratch.values()))
    at = memory.data_ptr()
    for name, numbers in scratch.items():
        setattr(call, name, at)
        at += lanes * numbers * size
    kernels().forward(call)
    return out


def _differentiable(
    weights: Weights, x: Tensor, starts: Tensor, lengths: Tensor, state: Sequence[Tensor], reverse: int
) -> tuple[Tensor, ...]:
    """Run a layer in one direction; return its outputs and its last states."""
    weights = weights if weights.values[0].dtype == x.dtype else weights.widened(x.dtype)
    h_0, *c_0 = state
    given = contiguous(h_0, c_0[0] if c_0 else None, weights.bias, weights.peephole, *weights.values)
    out, h_n, c_n = _Layer.apply(weights, starts, lengths, bool(reverse), x, *given)
    return (out, h_n, c_n) if c_0 else (out, h_n)


class _Layer(torch.autograd.Function):
    """A layer in one direction, as :func:`sparse_rnn.engine.ops.layer` is."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Weights,
        starts: Tensor,
        lengths: Tensor,
        reverse: bool,
        x: Tensor,
        h_0: Tensor,
        c_0: Tensor | None,
        bias: Tensor | None,
        peephole: Tensor | None,
        *values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        own = weights.roles, values, weights.offsets, weights.columns, ()
        given = weights.cell, x, h_0, c_0, bias, peephole, *own, starts, lengths, reverse
        out, h_n, c_n, kept = run_kernels(*given, training=True)
        # The kernels have kept x in their order, so a batch may be overwritten before its gradients are computed.
        ctx.x, ctx.version = x, version_of(x)
        ctx.save_for_backward(kept, h_0, c_0, bias, peephole, *values)
        ctx.set_materialize_grads(False)
        ctx.pattern = weights.roles, weights.offsets, weights.columns
        ctx.cell, ctx.blocks, ctx.lengths = weights.cell, weights.blocks, (starts, lengths, reverse)
        return out.detach(), h_n, c_n  # no view, which nobody could change in place

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_h_n: Tensor | None, grad_c_n: Tensor | None) -> Any:
        kept, h_0, c_0, bias, peephole, *values = ctx.saved_tensors
        x = ctx.x
        roles, offsets, columns = ctx.pattern
        needs_x = ctx.needs_input_grad[4]
        grad_h_n, grad_c_n = filled(grad_h_n, grad_c_n, h_0, c_0)
        if torch.is_grad_enabled():  # somebody differentiates the gradients, which the kernels do not
            if version_of(x) != ctx.version:
                raise RuntimeError("The input of a recurrent layer was modified in place, and is needed for gradients.")
            rows = x.reshape(-1, x.shape[-1])
            grad_rows = rows.new_zeros(len(rows), h_0.shape[1]) if grad_out is None else grad_out.reshape(len(rows), -1)
            gradients = [grad_rows, grad_h_n] if grad_c_n is None else [grad_rows, grad_h_n, grad_c_n]
            inputs = [rows, h_0, c_0, bias, peephole, *values]
            found = plain.layer_backward(ctx.cell, gradients, inputs, needs_x, roles, offsets, columns, *ctx.lengths)
            found[0] = found[0].view(x.shape) if needs_x else found[0]
        else:
            if grad_out is not None and grad_out.stride(-1) != 1:  # that of a sum is one number, expanded
                grad_out = grad_out.contiguous()
            grad_c_n = None if grad_c_n is None else grad_c_n.contiguous()
            own = x, bias, peephole, roles, values, offsets, columns, ctx.blocks
            given = ctx.cell, grad_out, grad_h_n.contiguous(), grad_c_n, kept, *own
            starts, lengths, reverse = ctx.lengths
            found = run_kernels_backwards(*given, starts, lengths, reverse, needs_x)
        present = (needs_x, True, c_0 is not None, bias is not None, peephole is not None, *[True] * len(values))
        return None, None, None, None, *(grad if is_one else None for grad, is_one in zip(found, present, strict=True))
