import pytest
import torch
from reconstructed import lost
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured import RandomUnits, Spectral, UnitMagnitude, shrink
from sparse_rnn.pruning.structured.reconstruction import degrees_of_freedom, information_loss, reconstruction


def second(model, x):
    h = model.rnn(x)[0].detach().flatten(0, 1)
    return h.T @ h / len(h)


def test_it_loses_less_than_what_does_not_look_at_the_units(kind, tagger, x):
    model = tagger(kind, units=12)
    lost = {}
    for criterion in (Spectral(units=4), RandomUnits(units=4), UnitMagnitude(units=4)):
        lost[type(criterion)] = sum(unit_plan.lost for unit_plan in criterion.plan(model, x))
    assert lost[Spectral] < min(lost[RandomUnits], lost[UnitMagnitude])


def test_the_reconstruction_is_the_papers_with_its_regularisation(tagger, x):
    model = tagger("rnn")
    (unit_plan,) = Spectral(units=5, regularisation=0.01).plan(model, x)
    moment = second(model, x)
    expected = reconstruction(moment, unit_plan.kept, 0.01)
    for reader in unit_plan.readers:  # the output layer reads all steps, so that its moment is the same
        torch.testing.assert_close(reader.reconstruction, expected, rtol=1e-9, atol=1e-9)
    assert unit_plan.lost == pytest.approx(information_loss(moment, unit_plan.kept) / moment.trace().item())


def test_the_weights_of_the_losses_decide_what_counts(tagger, x):
    model = tagger("rnn")
    with torch.no_grad():
        model.head.weight[:, [2, 5]] = 0
        model.head.weight[0, [2, 5]] = 100.0  # whoever looks at the outputs needs these two
        model.rnn.weight_hh_l0[:, :] *= 0.1
        model.rnn.weight_hh_l0[0, [1, 6]] = 50.0
    options = {"input_weight": 0.0, "output_weight": 0.0, "recurrent_weight": 0.0}

    def kept(**weights):
        return Spectral(units=2, regularisation=1e-3, **{**options, **weights}).plan(model, x)["rnn.l0"].kept.tolist()

    assert kept(output_weight=1.0) == [2, 5]
    assert kept(recurrent_weight=1.0) == [1, 6]
    moment = second(model, x)
    pairs = [(i, j) for i in range(8) for j in range(i + 1, 8)]
    best = min(pairs, key=lambda pair: lost(moment, torch.tensor(pair), 1e-3))
    assert kept(input_weight=1.0) == list(best)


def test_units_are_drawn_by_their_leverage(tagger, x):
    model = tagger("rnn")
    with torch.no_grad():  # three units that never move
        for parameter in model.rnn.parameters():
            parameter[:3] = 0
    moment = second(model, x)
    criterion = Spectral(units=4, choice="leverage", regularisation=0.01)
    (unit_plan,) = criterion.plan(model, x)
    assert not {0, 1, 2} & set(unit_plan.kept.tolist())
    _, leverage = degrees_of_freedom(moment, 0.01)
    tau = 0.01 * 4 * leverage[unit_plan.kept]
    expected = reconstruction(moment, unit_plan.kept, tau)
    torch.testing.assert_close(unit_plan.readers[0].reconstruction, expected, rtol=1e-9, atol=1e-9)
    others = {
        tuple(Spectral(4, choice="leverage", seed=seed).plan(model, x)["rnn.l0"].kept.tolist()) for seed in range(9)
    }
    assert len(others) > 1


def test_what_is_read_of_the_last_step_is_reconstructed_there(x):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[1][1][-1])  # the cells, even

    torch.manual_seed(0)
    model = Last().double()
    (unit_plan,) = plan = Spectral(units=5, regularisation=1e-9).plan(model, x)
    cells = model.rnn(x)[1][1][-1].detach()
    expected = reconstruction(cells.T @ cells / len(cells), unit_plan.kept, 1e-9)
    torch.testing.assert_close(unit_plan.readers[-1].reconstruction, expected, rtol=1e-8, atol=1e-8)
    assert (shrink(model, plan)(x) - model(x)).square().mean() < 0.02 * model(x).var()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regularisation": -1.0}, "regularisation=-1.0"),
        ({"choice": "best"}, "choice"),
        ({"input_weight": -1.0}, r"input_weight=-1\.0: give the weight of a loss, a number in \[0, inf\)"),
        ({"input_weight": 0.0, "output_weight": 0.0, "recurrent_weight": 0.0}, "one above it"),
        ({"choice": "leverage", "regularisation": 0.0}, "needs a regularisation"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Spectral(units=4, **options)
