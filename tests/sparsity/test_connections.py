"""Numbers of connections, against counting them one by one."""

import pytest
import torch
from torch import nn

from sparse_rnn import PeepholeLSTM, ResetBeforeGRU, prune
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.layers import named_layers
from sparse_rnn.sparsity.connections import connections

INPUTS, UNITS = 3, 6
MODELS = {
    "rnn": lambda: nn.RNN(INPUTS, UNITS),
    "gru": lambda: nn.GRU(INPUTS, UNITS, num_layers=2, bidirectional=True),
    "gru_reset_before": lambda: ResetBeforeGRU(INPUTS, UNITS, num_layers=2, bidirectional=True),
    "lstm": lambda: nn.LSTM(INPUTS, UNITS),
    "peephole": lambda: PeepholeLSTM(INPUTS, UNITS),
    "cell": lambda: nn.LSTMCell(INPUTS, UNITS),
}


@pytest.mark.parametrize("name", MODELS)
def test_numbers_equal_counting_one_by_one(name):
    model = MODELS[name]()
    masks = prune(model, None, sparsity=0.9, criterion="random", seed=1)
    layers = named_layers(find_recurrent(model))
    found = connections(model, masks)
    assert list(found) == list(layers)
    for name, layer in layers.items():
        incoming, outgoing = [0] * UNITS, [0] * UNITS
        inputs = recurrent = total = 0
        by_gate = {}
        kernels = {kernel: role for role, kernel in layer.kernels.items()}
        for kernel, role in kernels.items():
            total += masks[kernel].numel()
            for row, column in masks[kernel].nonzero().tolist():
                gate = layer.cell.gates[row // UNITS]
                by_gate[kernel, gate] = by_gate.get((kernel, gate), 0) + 1
                incoming[row % UNITS] += 1
                if role == "ih":
                    inputs += 1
                else:
                    recurrent += 1
                    outgoing[column] += 1
        result = found[name]
        assert (result.inputs, result.recurrent) == (inputs, recurrent)
        assert result.ratio == (inputs / recurrent if recurrent else float("inf"))
        assert result.dense_ratio == layer.input_size / sum(
            model.get_parameter(kernel).shape[1] for kernel, role in kernels.items() if role != "ih"
        )
        assert result.incoming.tolist() == incoming
        assert result.outgoing.tolist() == outgoing
        assert (result.no_incoming, result.no_outgoing) == (incoming.count(0), outgoing.count(0))
        assert result.sparsity == pytest.approx(1 - (inputs + recurrent) / total)
        assert {key: share for key, share in result.shares.items() if share} == pytest.approx(
            {key: count / (inputs + recurrent) for key, count in by_gate.items()}
        )


def test_without_masks_zeros_are_what_was_removed():
    model = nn.GRU(INPUTS, UNITS)
    masks = prune(model, None, sparsity=0.8, criterion="random")
    from_zeros, from_masks = connections(model)["l0"], connections(model, masks)["l0"]
    assert from_zeros.gates == from_masks.gates
    assert torch.equal(from_zeros.incoming, from_masks.incoming)
    with torch.no_grad():
        model.weight_hh_l0.zero_()  # a weight may be 0 by chance, and be kept
    assert connections(model, masks)["l0"].recurrent == from_masks.recurrent
    assert connections(model)["l0"].ratio == float("inf")


def test_a_projection_is_recurrent_and_its_units_have_outgoing_connections():
    model = nn.LSTM(INPUTS, UNITS, proj_size=2)
    with torch.no_grad():
        model.weight_hh_l0[:, 1] = 0
    found = connections(model)["l0"]
    assert found.outgoing.tolist() == [4 * UNITS, 0]
    assert found.incoming.tolist() == [4 * (INPUTS + 1)] * UNITS
    assert found.recurrent == 4 * UNITS + 2 * UNITS
    assert found.dense_ratio == 4 * UNITS * INPUTS / (4 * UNITS * 2 + 2 * UNITS)


def test_a_layer_of_zeros_has_shares_of_zero():
    model = nn.RNN(INPUTS, UNITS)
    with torch.no_grad():
        model.weight_ih_l0.zero_()
        model.weight_hh_l0.zero_()
    found = connections(model)["l0"]
    assert found.sparsity == 1
    assert set(found.shares.values()) == {0.0}


def test_cells_go_by_the_name_of_their_module():
    model = nn.ModuleDict({"encoder": nn.LSTM(2, 3, bidirectional=True), "decoder": nn.GRUCell(2, 3)})
    assert list(named_layers(find_recurrent(model))) == ["encoder.l0", "encoder.l0_reverse", "decoder"]
    assert list(named_layers(find_recurrent(nn.GRUCell(2, 3)))) == ["GRUCell"]


def test_connections_are_counted_whatever_device_is_the_default():
    model = nn.LSTM(INPUTS, UNITS)
    with torch.device("meta"):
        assert connections(model)["l0"].inputs == 4 * UNITS * INPUTS
