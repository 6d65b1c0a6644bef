"""Recurrent layers as plain operations that autograd can differentiate more than once; fused layers allow it once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.layers import RecurrentLayer
from sparse_rnn.recurrent.packing import reading_order, running, sequence_order
from sparse_rnn.recurrent.product import add


def run_layer(
    layer: RecurrentLayer, x_TBI: Tensor, initial: State | None = None, lengths: Tensor | None = None
) -> tuple[Tensor, State]:
    """Run one layer over a sequence, recording a graph on its live kernels and biases.

    Args:
        layer: The layer.
        x_TBI: Its inputs, in the order of the sequence, beginning together.
        initial: Its initial state, each tensor [B, H]; zeros if not given.
        lengths: Lengths of the sequences, [B]; T for all of them if not given.

    Returns:
        The outputs [T, B, H] in the order of the sequence, and the final state.
    """
    inputs_TBI = reading_order(x_TBI, lengths, layer.reverse)
    has_begun = None if lengths is None else running(len(x_TBI), lengths)
    state = initial or tuple(x_TBI.new_zeros(x_TBI.shape[1], size) for size in layer.state_sizes)

    weights, biases = layer.weights, dict(layer.biases)

    def project(**inputs: Tensor) -> Tensor:
        return add(linear(value, weights[role], biases.get(role)) for role, value in inputs.items())

    outputs = []
    for t, x_BI in enumerate(inputs_TBI):
        new = layer.cell.step(project, x_BI, state)
        if has_begun is not None:
            new = tuple(torch.where(has_begun[t], after, before) for after, before in zip(new, state, strict=True))
        state = new
        outputs.append(state[0])
    return sequence_order(torch.stack(outputs), lengths, layer.reverse), state
