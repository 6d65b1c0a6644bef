"""Where the remaining connections of a layer lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from sparse_rnn.recurrent.layers import RecurrentLayer
from sparse_rnn.sparsity.connections import kept_weights

COLUMNS, ROWS = 600, 240
"""Cells of a map, about; where a layer has more connections than cells, a cell is a block of them."""


@dataclass(frozen=True)
class ConnectionMap:
    """What is left of the connections of a layer, in cells.

    Attributes:
        left: Share of the connections of each cell that are left, [rows, columns]: rows are what the kernels read, one
            kernel below the other; columns are units, one gate beside the other.
        cell: Inputs and units that a cell covers; fewer where a kernel or a gate ends.
        kernels: Names of the kernels, without those of their modules.
        gates: Names of the gates.
        row_edges: The first row of every kernel, and the number of rows.
        column_edges: The first column of every gate, and the number of columns.
        units: Units of a gate.
    """

    left: np.ndarray
    cell: tuple[int, int]
    kernels: Sequence[str]
    gates: Sequence[str]
    row_edges: Sequence[int]
    column_edges: Sequence[int]
    units: int


@torch.no_grad()
def connection_map(layer: RecurrentLayer, masks: Mapping[str, Tensor] | None = None) -> ConnectionMap:
    """Map the connections of a layer; an LSTM's projection, whose rows are no gates, is left out.

    Args:
        layer: The layer.
        masks: Parameter name to mask, True = kept; the weights of a kernel without one are kept unless they are 0.
    """
    gates = layer.cell.gates
    kept = {role: mask for role, mask in kept_weights(layer, masks).items() if layer.gates_of(role) == gates}
    columns = len(gates) * layer.hidden_size
    rows = sum(mask.shape[1] for mask in kept.values())
    cell = (-(-rows // ROWS), -(-columns // COLUMNS))
    blocks = [[_shares(block.t(), cell) for block in mask.chunk(len(gates))] for mask in kept.values()]
    return ConnectionMap(
        left=np.block(blocks),
        cell=cell,
        kernels=[layer.kernels[role].rpartition(".")[2] for role in kept],
        gates=gates,
        row_edges=[0, *accumulate(len(row[0]) for row in blocks)],
        column_edges=[0, *accumulate(block.shape[1] for block in blocks[0])],
        units=layer.hidden_size,
    )


def _shares(mask: Tensor, cell: tuple[int, int]) -> np.ndarray:
    pooled = avg_pool2d(mask.cpu().float()[None, None], cell, ceil_mode=True, count_include_pad=False)
    return pooled[0, 0].numpy()
