"""What is known of the modules of torch and of this package."""

import pytest
import torch
from torch import nn

from sparse_rnn import PeepholeLSTM, ResetBeforeGRU
from sparse_rnn.recurrent import cells
from sparse_rnn.recurrent.entries import SHIPPED, Place

ENTRIES = {entry.kind: entry for entry in SHIPPED}
CELLS = [
    (nn.RNN(3, 4), cells.RNN_TANH),
    (nn.RNN(3, 4, nonlinearity="relu"), cells.RNN_RELU),
    (nn.RNNCell(3, 4, nonlinearity="relu"), cells.RNN_RELU),
    (nn.GRU(3, 4), cells.GRU),
    (nn.GRUCell(3, 4), cells.GRU),
    (ResetBeforeGRU(3, 4), cells.GRU_RESET_BEFORE),
    (nn.LSTM(3, 4), cells.LSTM),
    (nn.LSTMCell(3, 4), cells.LSTM),
    (nn.LSTM(3, 4, proj_size=2), cells.PROJECTED_LSTM),
    (PeepholeLSTM(3, 4), cells.PEEPHOLE_LSTM),
]


@pytest.mark.parametrize(("module", "cell"), CELLS, ids=lambda value: getattr(value, "name", None))
def test_a_module_has_the_cell_of_its_options(module, cell):
    assert ENTRIES[type(module)].cell(Place(module, "")) is cell


def test_each_diagonal_peephole_is_read_by_the_cell_of_its_own_layer():
    module = PeepholeLSTM(3, 4, 2, peepholes="diagonal", bidirectional=True)
    x, state, zeros = torch.zeros(1, 3), (torch.zeros(1, 4), torch.ones(1, 4)), torch.zeros(1, 16)
    steps = []
    entry = ENTRIES[PeepholeLSTM]
    for place in (place for directions in entry.places(module, "") for place in directions):
        getattr(module, place.path("peephole_l{layer}{direction}")).data.fill_(len(steps))
        steps.append(entry.cell(place).step(lambda **_: zeros, x, state)[1][0, 0].item())
    # What the forget gate leaves of c = 1.
    expected = [torch.sigmoid(torch.tensor(float(peephole))).item() for peephole in range(4)]
    assert steps == pytest.approx(expected)


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.kind.__name__)
def test_the_patterns_name_all_parameters_of_each_layer(entry):
    many = {"num_layers": 2, "bidirectional": True} if entry.runs == "sequence" else {}
    module = entry.kind(3, 4, **many)
    places = [place for directions in entry.places(module, "") for place in directions]
    named = {path for place in places for what in (entry.kernels, entry.biases) for path in place.paths(what).values()}
    assert len(places) == (4 if many else 1)
    assert set(dict(module.named_parameters())) <= named
