import pytest
import torch
from torch import nn

from sparse_rnn import register_cell
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured import RandomUnits, shrink
from sparse_rnn.pruning.structured.unit_criterion import best


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.low, self.high, self.head = nn.GRU(3, 10), nn.LSTM(10, 20, 2, bidirectional=True), nn.Linear(40, 2)

    def forward(self, x):
        return self.head(self.high(self.low(x)[0])[0])


@pytest.mark.parametrize(
    ("units", "low", "high"),
    [(7, 7, 7), (0.5, 5, 10), (1.0, 10, 20), ({"high": 6}, 10, 6), ({"low": 0.25, "high": 1}, 3, 1), (1e-6, 1, 1)],
)
def test_units_are_a_number_a_share_or_given_by_module(units, low, high):
    model, x = Stack(), torch.randn(5, 2, 3)
    small = shrink(model, RandomUnits(units).plan(model, x))
    assert (small.low.hidden_size, small.high.hidden_size) == (low, high)
    assert small.high.input_size == low
    assert small(x).shape == (5, 2, 2)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (11, "units=11 for low: give a number from 1 to 10"),
        (0, "units=0: give a number of units"),
        (1.5, r"units=1\.5: give a share of the units"),
        (True, "units=True: give a number of units"),
        ({"low": 3, 4: 5}, r"units=\{'low': 3, 4: 5\}: 4 is no name of a module"),
        ({"middle": 3}, "units= names middle, which is none of low, high"),
        ({"low.l0": 3}, "All layers and directions of a module keep as many units"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(units, message):
    with pytest.raises(UsageError, match=message):
        RandomUnits(units).plan(Stack(), torch.randn(5, 2, 3))


def test_a_projected_lstm_keeps_more_units_than_it_projects_to():
    rnn, x = nn.LSTM(3, 8, proj_size=4), torch.randn(5, 2, 3)
    with pytest.raises(UsageError, match="give a number from 5 to 8"):
        RandomUnits(4).plan(rnn, x)
    assert shrink(rnn, RandomUnits(5).plan(rnn, x)).hidden_size == 5


def test_a_cell_of_ones_own_is_refused():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.W, self.U = nn.Parameter(torch.rand(4, 3)), nn.Parameter(torch.rand(4, 4))

        def forward(self, x, h):
            return torch.tanh(x @ self.W.T + h @ self.U.T)

    def step(cell, project, x, state):
        return (project(ih=x, hh=state[0]).tanh(),)

    register_cell(Own, step=step, kernels={"ih": "W", "hh": "U"})
    with pytest.raises(
        UsageError, match=r"Own, which sparse_rnn cannot make smaller.*: name only other modules in units=\."
    ):
        RandomUnits(2).plan(Own(), (torch.rand(1, 3), torch.rand(1, 4)))


def test_layers_that_do_not_run_are_refused():
    class Idle(Stack):
        def forward(self, x):
            return self.low(x)[0] @ torch.ones(10, 2)

    with pytest.raises(UsageError, match=r"'high' received no input.*: leave it out of those that"):
        RandomUnits({"high": 2}).plan(Idle(), torch.randn(5, 2, 3))


def test_layers_that_share_weights_are_refused():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.GRU(4, 4), nn.GRU(4, 4), nn.Linear(4, 1)
            self.second.weight_hh_l0 = self.first.weight_hh_l0

        def forward(self, x):
            return self.head(self.second(self.first(x)[0])[0])

    with pytest.raises(
        UsageError, match=r"share second\.weight_hh_l0.*: leave both out, or give each weights of its own"
    ):
        RandomUnits(2).plan(Shared(), torch.randn(5, 2, 4))


def test_without_data_nothing_is_reconstructed():
    model, x = Stack(), torch.randn(5, 2, 3)
    plan = RandomUnits(5, reconstruct=False).plan(model, x)
    assert all(reader.reconstruction is None for unit_plan in plan for reader in unit_plan.readers)
    assert all(unit_plan.lost is None for unit_plan in plan)


def test_ties_break_by_position():
    assert best(torch.tensor([1.0, 2.0, 1.0, 2.0]), 3).tolist() == [1, 3, 0]
