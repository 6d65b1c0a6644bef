"""Recurrent layers as plain operations that autograd can differentiate more than once; fused layers allow it once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.layers import RecurrentLayer
from sparse_rnn.recurrent.packing import reading_order, running, sequence_order
from sparse_rnn.recurrent.product import add


def run_layer(
    layer: RecurrentLayer,
    x_TBI: Tensor,
    initial: State | None = None,
    lengths: Tensor | None = None,
    see: Callable[[str, Tensor], None] | None = None,
) -> tuple[Tensor, State]:
    """Run one layer over a sequence, recording a graph on its live kernels and biases.

    Args:
        layer: The layer.
        x_TBI: Its inputs, in the order of the sequence, beginning together.
        initial: Its initial state, each tensor [B, H]; zeros if not given.
        lengths: Lengths of the sequences, [B]; T for all of them if not given.
        see: Is given, in every step, what kernels read that is neither the input nor a state, and each new state, by
            what the cell calls them.

    Returns:
        The outputs [T, B, H] in the order of the sequence, and the final state.
    """
    inputs_TBI = reading_order(x_TBI, lengths, layer.reverse)
    has_begun = None if lengths is None else running(len(x_TBI), lengths)
    state = initial or tuple(x_TBI.new_zeros(x_TBI.shape[1], size) for size in layer.state_sizes)

    weights, biases = layer.weights, dict(layer.biases)
    known = ("x", *layer.cell.states)

    def project(**inputs: Tensor) -> Tensor:
        for role, value in inputs.items():
            if see is not None and layer.cell.reads[role] not in known:
                see(layer.cell.reads[role], value)
        return add(linear(value, weights[role], biases.get(role)) for role, value in inputs.items())

    outputs = []
    for t, x_BI in enumerate(inputs_TBI):
        new = layer.cell.step(project, x_BI, state)
        if has_begun is not None:
            new = tuple(torch.where(has_begun[t], after, before) for after, before in zip(new, state, strict=True))
        state = new
        outputs.append(state[0])
        if see is not None:
            for name, values in zip(layer.cell.states, state, strict=True):
                see(name, values)
    return sequence_order(torch.stack(outputs), lengths, layer.reverse), state
