"""Layers as the Jacobian-spectrum paper's author scores them: with constant biases, a GRU's reset gate in front."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from sparse_rnn.recurrent import cells
from sparse_rnn.recurrent.cells import Cell
from sparse_rnn.recurrent.layers import RecurrentLayer
from sparse_rnn.recurrent.unroll import Unrolled


def run_as_scored(calls: Iterable[Unrolled], bias: float | None, reset_before: bool) -> Iterator[Unrolled]:
    """Run layers again as they are to be scored, each on the inputs and from the state that it received.

    Args:
        calls: The layers as they ran.
        bias: Bias of every pre-activation, see :func:`constant_biases`; None for the layers' own.
        reset_before: Whether a GRU of PyTorch's has its reset gate before the recurrent product.
    """
    layers: dict[int, RecurrentLayer] = {}
    for unrolled in calls:
        layer = unrolled.layer
        cell = cells.GRU_RESET_BEFORE if reset_before and layer.cell is cells.GRU else layer.cell
        if bias is None and cell is layer.cell:
            yield unrolled
            continue
        if id(layer) not in layers:
            biases = layer.whole_biases if bias is None else constant_biases(layer, bias)
            layers[id(layer)] = layer.run_by(cell, biases)
        yield unrolled.run_as(layers[id(layer)])


def constant_biases(layer: RecurrentLayer, bias: float) -> dict[str, Tensor]:
    """Give every pre-activation of a layer the same bias; those of an LSTM's forget gate one that is 1 larger.

    The author's update gate is 1 - z of PyTorch's z, which has the opposite sign, therefore.

    Example:
        >>> from sparse_rnn.recurrent import find_recurrent
        >>> [found] = find_recurrent(torch.nn.GRU(3, 1))
        >>> constant_biases(found.layers[0][0], 0.5)
        {'ih': tensor([ 0.5000, -0.5000,  0.5000])}
    """
    by_gate = [_bias_of(layer.cell, gate, bias) for gate in layer.cell.gates]
    rows = torch.tensor(by_gate, dtype=layer.precision).repeat_interleave(layer.hidden_size)
    return {layer.cell.whole_of(role): rows.to(layer.parameters[role].device) for role in layer.cell.of_input}


def _bias_of(cell: Cell, gate: str, bias: float) -> float:
    if cell.name.startswith("gru") and gate == "z":
        return -bias
    return bias + 1 if cell.name.endswith("lstm") and gate == "f" else bias
