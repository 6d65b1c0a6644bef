import pytest
import torch
from torch import nn

from sparse_rnn.engine.library import CELLS
from sparse_rnn.engine.sequences import joined_bias
from sparse_rnn.engine.slots import slots, slots_of_unit, slots_there

GATES = {"rnn_tanh": nn.RNN, "rnn_relu": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@pytest.mark.parametrize("cell", CELLS)
def test_every_slot_is_added_to_by_a_gate_and_every_gate_adds_to_one(cell):
    gates = len(GATES[cell](1, 1).weight_ih_l0)
    added = [slots(cell, role) for role in ("ih", "hh")]
    assert all(len(own) == len(set(own)) == gates for own in added)
    assert set().union(*added) == set(range(slots_of_unit(cell)))


@pytest.mark.parametrize("cell", CELLS)
def test_biases_are_in_the_slots_of_their_gates(cell):
    gates = len(slots(cell, "ih"))
    bias_ih, bias_hh = torch.arange(gates) + 1.0, (torch.arange(gates) + 1.0) * 100
    expected = torch.zeros(slots_of_unit(cell))
    for role, bias in (("ih", bias_ih), ("hh", bias_hh)):
        expected[list(slots(cell, role))] += bias
    assert torch.equal(joined_bias(cell, bias_ih, bias_hh), expected.unsqueeze(0))


def test_a_projection_has_one_slot_an_output():
    assert (slots("lstm", "hr"), slots_there("lstm", "hr"), slots_there("lstm", "ih")) == ((0,), 1, 4)
