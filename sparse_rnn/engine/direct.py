"""Calls the kernels in C without going through torch, whose dispatch takes longer than a step of a small layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sparse_rnn.engine import ops
from sparse_rnn.engine.library import Call, kernels
from sparse_rnn.engine.weights import Layers, Weights


def run_directly(
    layers: Layers, x: Tensor, starts: Tensor, lengths: Tensor, state: Sequence[Tensor], dropout: float
) -> tuple[Tensor, list[Tensor]]:
    """Do the same as :func:`~sparse_rnn.engine.sequences.run_layers`, where nothing is traced or differentiated."""
    state = [part.contiguous() for part in state]
    last = [torch.empty_like(part) for part in state]
    index = 0
    for depth, directions in enumerate(layers):
        x, outputs = x.contiguous(), []
        for reverse, weights in enumerate(directions):
            outputs.append(_run(weights, x, starts, lengths, state, last, index, reverse))
            index += 1
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)
        if dropout > 0 and depth + 1 < len(layers):
            x = F.dropout(x, dropout)
    return x, last


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
    (rows, inputs), steps, batch = x.shape, starts.shape[0], lengths.shape[0]
    units, outputs, size = weights.units, weights.outputs, x.element_size()
    out = x.new_empty(rows, outputs)
    call = Call.from_buffer_copy(weights.constant)  # its own one, as other threads may call the layer meanwhile
    call.type, call.threads, call.reverse = ops.TYPES[x.dtype], torch.get_num_threads(), reverse
    call.steps, call.batch, call.inputs = steps, batch, inputs
    call.starts, call.lengths = starts.data_ptr(), lengths.data_ptr()
    call.x, call.out = x.data_ptr(), out.data_ptr()
    at = index * batch * outputs * size
    call.h_0, call.h_n = state[0].data_ptr() + at, last[0].data_ptr() + at
    scratch = {"inputs_kept": steps * inputs, "h": (steps + 1) * outputs}
    if len(state) == 2:
        at = index * batch * units * size
        call.c_0, call.c_n = state[1].data_ptr() + at, last[1].data_ptr() + at
        scratch["c"] = (steps + 1) * units
    if "hr" in weights.roles:
        scratch["unprojected"] = steps * units
    lanes = 1 if batch == 1 else -(-batch // ops.WIDEST) * ops.WIDEST
    memory = x.new_empty(lanes * sum(scratch.values()))
    at = memory.data_ptr()
    for name, numbers in scratch.items():
        setattr(call, name, at)
        at += lanes * numbers * size
    kernels().forward(call)
    return out
