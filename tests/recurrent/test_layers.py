"""What the layers of recurrent modules are made of."""

import pytest
import torch
from torch import nn

from sparse_rnn import ResetBeforeGRU
from sparse_rnn.recurrent.cells import GRU_RESET_BEFORE
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.layers import layers_of, named_layers


def test_gates_that_read_different_things_are_joined_to_one_kernel():
    gru = ResetBeforeGRU(3, 5)
    (layer,) = find_recurrent(gru)[0].layers[0]
    joined = layer.all_gates(layer.weights)
    assert list(joined) == ["ih", "hh_rz"]
    assert torch.equal(joined["hh_rz"], gru.weight_hh_l0)
    assert torch.equal(joined["ih"], gru.weight_ih_l0)
    part = layer.whole("hh_n", torch.ones(5, 5))
    assert part.shape == (15, 5)
    assert part[:10].count_nonzero() == 0
    assert part[10:].all()


def test_a_layer_run_by_another_cell_has_the_same_live_kernels():
    gru = nn.GRU(3, 5)
    (layer,) = find_recurrent(gru)[0].layers[0]
    other = layer.run_by(GRU_RESET_BEFORE, {"ih": torch.zeros(15)})
    assert other.kernels == {"ih": "weight_ih_l0", "hh_rz": "weight_hh_l0", "hh_n": "weight_hh_l0"}
    assert all(parameter is gru.get_parameter(other.kernels[role]) for role, parameter in other.parameters.items())
    assert list(other.biases) == ["ih"]
    again = other.run_by(GRU_RESET_BEFORE, layer.whole_biases)
    assert again.kernels == other.kernels
    assert [tuple(bias.shape) for bias in again.biases.values()] == [(15,), (10,), (5,)]


@pytest.mark.parametrize(
    ("cell", "name", "gates"),
    [
        (nn.RNNCell(3, 5), "rnn_tanh", "h"),
        (nn.RNNCell(3, 5, nonlinearity="relu"), "rnn_relu", "h"),
        (nn.GRUCell(3, 5), "gru", "rzn"),
        (nn.LSTMCell(3, 5), "lstm", "ifgo"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_cell_is_a_module_of_one_layer_that_takes_one_step(cell, name, gates):
    (found,) = find_recurrent(nn.ModuleDict({"cell": cell}))
    assert found.takes_one_step
    ((layer,),) = found.layers
    assert layer.cell.name == name
    assert layer.cell.gates == tuple(gates)
    assert layer.kernels == {"ih": "cell.weight_ih", "hh": "cell.weight_hh"}
    assert (layer.input_size, layer.hidden_size, layer.reverse) == (3, 5, False)


def test_the_states_of_a_projected_lstm_have_two_sizes():
    (layer,) = layers_of(find_recurrent(nn.LSTM(3, 8, proj_size=2)))
    assert layer.state_sizes == (2, 8)
    assert layer.hidden_size == 8
    assert layer.gates_of("hr") == ("h",)
    assert layer.gates_of("hh") == ("i", "f", "g", "o")
    assert layer.state_kernels == ("weight_hh_l0", "weight_hr_l0")


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_scores_are_computed_in_single_precision_at_least(dtype, precision):
    (layer,) = layers_of(find_recurrent(nn.GRU(3, 4).to(dtype)))
    assert layer.precision == precision


def test_names_of_layers_in_logs():
    model = nn.ModuleDict(
        {"rnn": nn.LSTM(2, 3, num_layers=2, bidirectional=True), "cell": nn.GRUCell(2, 3), "top": nn.RNN(2, 3)}
    )
    found = find_recurrent(model)
    named = named_layers(found)
    assert list(named) == ["rnn.l0", "rnn.l0_reverse", "rnn.l1", "rnn.l1_reverse", "cell", "top.l0"]
    assert list(named.values()) == layers_of(found)
    assert named["rnn.l1_reverse"].kernels["hh"] == "rnn.weight_hh_l1_reverse"
    assert list(named_layers(find_recurrent(nn.LSTMCell(2, 3)))) == ["LSTMCell"]
