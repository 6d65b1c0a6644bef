import pytest
import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel
from sparse_rnn.pruning.structured import Exact, shrink
from sparse_rnn.pruning.structured.group_lasso import group_lasso

UNITS = 5


class Net(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.rnn, self.head = cell(3, UNITS, num_layers=2).double(), nn.Linear(UNITS, 4).double()

    def forward(self, x):
        return self.head(self.rnn(x)[0])


X = torch.randn(6, 2, 3).double()


def weights_of(model, layer, unit):
    """The weights of a unit, each by its parameter's name and its index, written down by hand."""
    gates = model.rnn.weight_hh_l0.shape[0] // UNITS
    rows = [gate * UNITS + unit for gate in range(gates)]
    found = [(f"rnn.weight_hh_l{layer}", (slice(None), unit))]
    if layer == 0:
        found += [("rnn.weight_ih_l1", (slice(None), unit)), ("rnn.weight_ih_l0", (rows, slice(None)))]
    else:
        found += [("head.weight", (slice(None), unit))]
    return found


cells = pytest.mark.parametrize("cell", [nn.RNN, nn.GRU, nn.LSTM])


@cells
def test_each_weight_belongs_to_one_unit(cell):
    model = Net(cell)
    for layer, lasso in enumerate(group_lasso(model, X)):
        for unit in range(UNITS):
            values = [model.get_parameter(name)[index].flatten() for name, index in weights_of(model, layer, unit)]
            torch.testing.assert_close(lasso.norms()[unit], torch.cat(values).norm(), rtol=1e-12, atol=0)
    total = sum(lasso.norms().square().sum() for lasso in group_lasso(model, X))
    torch.testing.assert_close(total, sum(p.square().sum() for p in model.parameters() if p.dim() > 1))


@cells
def test_the_step_is_the_proximal_operator(cell):
    """It is the minimum of t Σ ‖w_g‖ + ½ ‖w − v‖²: its subgradient holds 0, which says that w is the only one."""
    model = Net(cell)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    lassos = group_lasso(model, X)
    threshold = lassos[1].norms().median().item()
    for lasso in lassos:
        lasso.step_(threshold)
    assert 0 < sum(int((lasso.norms() == 0).sum()) for lasso in lassos) < 2 * UNITS
    for layer in range(2):
        for unit in range(UNITS):
            parts = weights_of(model, layer, unit)
            w = torch.cat([model.get_parameter(name)[index].flatten() for name, index in parts])
            v = torch.cat([before[name][index].flatten() for name, index in parts])
            if w.any():
                torch.testing.assert_close(w - v + threshold * w / w.norm(), torch.zeros_like(w), rtol=0, atol=1e-12)
            else:
                assert (w - v).norm() <= threshold + 1e-12
    biases = [name for name in before if "bias" in name]
    assert all(torch.equal(model.get_parameter(name), before[name]) for name in biases)


@cells
def test_units_of_which_nothing_is_left_are_removed_exactly(cell):
    model = Net(cell)
    lassos = group_lasso(model, X)
    for lasso in lassos:
        lasso.step_(lasso.norms().sort().values[1].item())
    small = shrink(model, Exact().plan(model, X))
    assert small.rnn.hidden_size == UNITS - 2
    torch.testing.assert_close(small(X), model(X), rtol=0, atol=1e-12)


def test_a_concatenation_of_units_and_other_features():
    """The rows of what reads other features belong to the units that they make."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.below, self.above, self.head = nn.RNN(3, UNITS), nn.RNN(UNITS + 3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.above(torch.cat([self.below(x)[0], x], dim=-1))[0])

    model, x = Both(), torch.randn(6, 2, 3)
    below, above = group_lasso(model, x)
    parts = [model.above.weight_ih_l0[:, UNITS:], model.above.weight_hh_l0.T, model.head.weight.T]
    expected = sum(part.square().sum(1) for part in parts).sqrt()
    torch.testing.assert_close(above.norms(), expected)
    before = model.above.weight_ih_l0.detach().clone()
    below.step_(1e9)
    assert not model.above.weight_ih_l0[:, :UNITS].any()
    assert torch.equal(model.above.weight_ih_l0[:, UNITS:], before[:, UNITS:])
    above.step_(1e9)
    assert not model.above.weight_ih_l0.any()


def test_groups_know_when_their_parameters_have_become_smaller():
    model = Net(nn.GRU)
    lasso = group_lasso(model, X)[0]
    assert lasso.fits
    model.rnn.weight_hh_l0.data = torch.zeros(3, 1)
    assert not lasso.fits


def test_a_threshold_that_is_no_number_removes_nothing():
    model = Net(nn.GRU)
    lasso = group_lasso(model, X)[0]
    before = lasso.norms()
    lasso.step_(torch.tensor([torch.nan, *[0.0] * (UNITS - 1)]))
    assert lasso.norms()[0].isnan()
    assert torch.equal(lasso.norms()[1:], before[1:])


def test_layers_that_do_not_run_or_are_frozen_have_no_groups():
    class More(Net):
        def __init__(self):
            super().__init__(nn.GRU)
            self.unused, self.frozen = nn.GRU(3, 4), nn.GRU(3, UNITS).double().requires_grad_(False)

        def forward(self, x):
            return super().forward(x), self.frozen(x)[0]  # whose units nothing could follow

    assert [lasso.layer for lasso in group_lasso(More(), X)] == ["rnn.l0", "rnn.l1"]
    with pytest.raises(UsageError, match="'rnn' received no input"):
        group_lasso(More(), X, lambda model, x: x)
    with pytest.raises(UsageError, match=r"None of rnn, unused, frozen can lose units.*: train a recurrent module"):
        group_lasso(More().requires_grad_(False), X)


def test_a_tied_decoder_is_refused():
    model = LanguageModel(9, embedding_size=4, embedding="tied", hidden_size=4)
    tokens = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(UsageError, match=r"to_embedding hands the units of rnn\.0\.l0 on to a decoder that is tied"):
        group_lasso(model, tokens, lambda m, x: m.decoder.nll(m(x)[0].flatten(0, 1), x.flatten()))
