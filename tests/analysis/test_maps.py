import numpy as np
import pytest
import torch

from sparse_rnn import PeepholeLSTM, ResetBeforeGRU
from sparse_rnn.analysis import maps
from sparse_rnn.analysis.maps import connection_map
from sparse_rnn.recurrent.finding import find_recurrent


def layer_and_masks(module):
    layer = find_recurrent(module)[0].layers[0][0]
    generator = torch.Generator().manual_seed(0)
    return layer, {n: torch.rand(p.shape, generator=generator) < 0.3 for n, p in module.named_parameters()}


@pytest.mark.parametrize("kind", [torch.nn.RNN, torch.nn.GRU, ResetBeforeGRU, torch.nn.LSTM, PeepholeLSTM])
def test_every_connection_has_its_cell(kind):
    layer, masks = layer_and_masks(kind(3, 5))
    found = connection_map(layer, masks)
    assert found.cell == (1, 1)
    assert found.kernels == list(dict.fromkeys(layer.kernels.values()))
    for i, kernel in enumerate(found.kernels):
        for j in range(len(found.gates)):
            block = found.left[
                found.row_edges[i] : found.row_edges[i + 1], found.column_edges[j] : found.column_edges[j + 1]
            ]
            assert np.array_equal(block.T, masks[kernel][5 * j : 5 * (j + 1)].float())
    assert found.left.shape == (found.row_edges[-1], found.column_edges[-1])


def test_cells_of_a_large_layer_are_means_that_cross_neither_gates_nor_kernels(monkeypatch):
    monkeypatch.setattr(maps, "COLUMNS", 8)
    monkeypatch.setattr(maps, "ROWS", 4)
    layer, masks = layer_and_masks(torch.nn.GRU(3, 7))  # 21 columns and 10 rows
    found = connection_map(layer, masks)
    assert found.cell == (3, 3)
    assert found.row_edges == [0, 1, 4]
    assert found.column_edges == [0, 3, 6, 9]
    recurrent = masks["weight_hh_l0"].float()
    for gate in range(3):
        for row in range(3):
            for column in range(3):
                units = recurrent[7 * gate : 7 * (gate + 1)][3 * column : 3 * column + 3, 3 * row : 3 * row + 3]
                assert found.left[1 + row, 3 * gate + column] == pytest.approx(units.mean().item())


def test_a_projection_is_left_out():
    layer, masks = layer_and_masks(torch.nn.LSTM(3, 5, proj_size=2))
    found = connection_map(layer, masks)
    assert found.kernels == ["weight_ih_l0", "weight_hh_l0"]
    assert found.left.shape == (3 + 2, 4 * 5)


def test_without_masks_what_is_not_zero_is_left():
    gru = torch.nn.GRU(3, 5)
    with torch.no_grad():
        gru.weight_hh_l0[7, 2] = 0
    found = connection_map(find_recurrent(gru)[0].layers[0][0])
    assert np.argwhere(found.left == 0).tolist() == [[3 + 2, 7]]
