"""γ against autograd through the layers themselves, in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from sparse_rnn import SNIP, GraSP, JacobianSpectrum, prune
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU
from sparse_rnn.scores.gamma import normalise, normalised_

BATCH, STEPS, INPUTS, UNITS = 3, 6, 2, 4
CELLS = {
    "rnn_tanh": lambda: nn.RNN(INPUTS, UNITS),
    "rnn_relu": lambda: nn.RNN(INPUTS, UNITS, nonlinearity="relu"),
    "gru": lambda: nn.GRU(INPUTS, UNITS),
    "gru_reset_before": lambda: ResetBeforeGRU(INPUTS, UNITS),
    "lstm": lambda: nn.LSTM(INPUTS, UNITS),
    "peephole_lstm": lambda: PeepholeLSTM(INPUTS, UNITS),
    "diagonal_peephole_lstm": lambda: PeepholeLSTM(INPUTS, UNITS, peepholes="diagonal"),
}


def layer(cell: str) -> nn.Module:
    torch.manual_seed(0)
    rnn = CELLS[cell]().double()
    for parameter in rnn.parameters():
        nn.init.normal_(parameter, 0.1, 0.6)
    return rnn


def data() -> Tensor:
    return torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def brute_gamma(rnn: nn.Module, kind: str, seed: int) -> dict[str, Tensor]:
    """Eq. 7 by autograd through the layer itself, on the noise that the seed gives."""
    torch.manual_seed(seed)
    states = 2 if isinstance(rnn, (nn.LSTM, PeepholeLSTM)) else 1
    if kind == "author":
        x = (torch.randn(5, 100, INPUTS) * 0.1).double()
        hx = [(1 + torch.randn(100, UNITS) * 0.1).double()[None] for _ in range(states)]
        output, _ = rnn(x, hx[0] if states == 1 else tuple(hx))
        value = output[-1].sum()
    else:
        x = (torch.randn(STEPS, BATCH, INPUTS) * 0.1).double()
        value = rnn(x)[0].sum() / BATCH
    kernels = {name: p for name, p in rnn.named_parameters() if name.startswith("weight")}
    return dict(zip(kernels, torch.autograd.grad(value, list(kernels.values())), strict=True))


@pytest.mark.parametrize("gamma", ["sequence", "author"])
@pytest.mark.parametrize("cell", CELLS)
def test_gamma_divides_by_the_gradient_of_the_states_on_noise(cell, gamma):
    rnn, x = layer(cell), data()
    torch.manual_seed(5)
    actual = JacobianSpectrum.paper(gamma=gamma).score(rnn, x, None, find_targets(rnn))
    torch.manual_seed(5)
    plain = JacobianSpectrum.paper(gamma="none").score(rnn, x, None, find_targets(rnn))
    reference = brute_gamma(rnn, gamma, seed=5)
    expected = {name: torch.where(reference[name] == 0, 0, plain[name] / reference[name].abs()) for name in plain}
    assert actual.keys() == expected.keys()
    assert any(score.max() > 0 for score in expected.values())
    for name in expected:
        torch.testing.assert_close(
            actual[name], expected[name], rtol=1e-6, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


def scored(criterion: JacobianSpectrum, model: nn.Module, *batch) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return criterion.score(model, batch, None, find_targets(model))


@pytest.mark.parametrize("gamma", ["sequence", "author"])
def test_the_mean_absolute_gamma_of_several_draws_divides(gamma):
    rnn, x = layer("gru"), data()
    plain = scored(JacobianSpectrum.paper(gamma="none"), rnn, x)
    actual = scored(JacobianSpectrum.paper(gamma=gamma, draws=3), rnn, x)
    torch.manual_seed(5)
    each = [JacobianSpectrum.paper(gamma=gamma).score(rnn, x, None, find_targets(rnn)) for _ in range(3)]
    for name, score in plain.items():
        expected = sum(score / one[name] for one in each) / 3
        torch.testing.assert_close(score / actual[name], expected, rtol=1e-6, atol=1e-12)


class Calls(nn.Module):
    """Calls a layer on each of its inputs, from the zero state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = layer("gru")

    def forward(self, *inputs) -> None:
        for x in inputs:
            self.rnn(x)


@pytest.mark.parametrize("steps", [STEPS, 1])
def test_the_noise_is_as_large_as_all_that_the_layer_receives(steps):
    model, first = Calls(), data()[:steps]
    second = 3 + 5 * first
    noise = torch.cat([first, second]).std(correction=0).item()
    actual, expected = (
        scored(JacobianSpectrum.paper(noise=option), model, first, second) for option in ("data", noise)
    )
    torch.testing.assert_close(actual, expected)
    assert not torch.allclose(
        actual["rnn.weight_ih_l0"], scored(JacobianSpectrum.paper(), model, first, second)["rnn.weight_ih_l0"]
    )


def test_padding_does_not_count_as_received():
    model, lengths = Calls(), torch.tensor([2, 6, 3])
    packed = pack_padded_sequence(data(), lengths, enforce_sorted=False)
    noise = packed.data.std(correction=0).item()
    actual, expected = (scored(JacobianSpectrum.paper(noise=option), model, packed) for option in ("data", noise))
    torch.testing.assert_close(actual, expected)


def test_inputs_that_are_all_the_same_still_have_noise():
    x = torch.full_like(data(), 0.5)
    actual, expected = (scored(JacobianSpectrum.paper(noise=noise), Calls(), x) for noise in ("data", 0.1))
    torch.testing.assert_close(actual, expected)
    assert actual["rnn.weight_ih_l0"].count_nonzero()


def test_where_gamma_is_zero_the_score_is_zero():
    rnn, x = layer("rnn_relu"), data().abs()
    with torch.no_grad():
        rnn.weight_ih_l0[1] = 0
        rnn.weight_hh_l0[1] = 0
        rnn.bias_ih_l0[1] = -5  # unit 1 never fires, on the data as on the noise
        rnn.weight_ih_l0.abs_()
    scores = JacobianSpectrum.paper().score(rnn, x, None, find_targets(rnn))
    assert all(torch.isfinite(score).all() for score in scores.values())
    assert (scores["weight_ih_l0"][1] == 0).all()
    assert (scores["weight_hh_l0"][1] == 0).all()


def test_a_gamma_of_zero_makes_no_score_infinite():
    score = normalised_(torch.tensor([6.0, 0.0, 5.0]), torch.tensor([-2.0, 0.0, 0.0]))
    assert torch.equal(score, torch.tensor([3.0, 0.0, 0.0]))


@pytest.mark.parametrize("gamma", ["sequence", "author"])
def test_scores_of_one_are_divided_by_the_gradient_itself(gamma):
    rnn, x = layer("lstm"), data()
    targets = find_targets(rnn)
    ones = {name: torch.ones_like(kernel.parameter).detach() for name, kernel in targets.items()}
    torch.manual_seed(2)
    actual = normalise(ones, gamma, targets, x, None)
    for name, reference in brute_gamma(rnn, gamma, seed=2).items():
        torch.testing.assert_close(actual[name], 1 / reference.abs(), rtol=1e-9, atol=0)


def test_a_layer_that_is_called_twice_is_divided_by_the_sum():
    """γ of both calls, which are summed before they divide: their signs count."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = layer("gru")

        def forward(self, x):
            self.rnn(x), self.rnn(x)

    model = Twice()
    targets = find_targets(model)
    ones = {name: torch.ones_like(kernel.parameter).detach() for name, kernel in targets.items()}
    torch.manual_seed(2)
    actual = normalise(ones, "sequence", targets, data(), None)["rnn.weight_hh_l0"]
    first = brute_gamma(model.rnn, "sequence", seed=2)["weight_hh_l0"]
    noise = (torch.randn(STEPS, BATCH, INPUTS) * 0.1).double()  # what the generator gives next
    (second,) = torch.autograd.grad(model.rnn(noise)[0].sum() / BATCH, model.rnn.weight_hh_l0)
    torch.testing.assert_close(actual, 1 / (first + second).abs(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("criterion", [SNIP, GraSP])
def test_gamma_divides_by_what_the_jacobian_divides_by(criterion, build, loss_fn):
    model, batch = build("gru")

    def scores(of):
        torch.manual_seed(3)
        return of.score(model, batch, loss_fn, find_targets(model))["rnn.weight_hh_l0"]

    gamma = scores(JacobianSpectrum.paper(gamma="none")) / scores(JacobianSpectrum.paper(gamma="sequence"))
    torch.testing.assert_close(scores(criterion(gamma="sequence")) * gamma, scores(criterion()), rtol=1e-9, atol=0)


@pytest.mark.parametrize("criterion", [SNIP(gamma="sequence"), GraSP(gamma="author")])
def test_gamma_is_refused_beyond_recurrent_kernels(criterion, build, loss_fn):
    model, batch = build("gru")
    with pytest.raises(ValueError, match=r"recurrent kernels only, and head\.weight is none"):
        prune(model, batch, sparsity=0.5, criterion=criterion, loss_fn=loss_fn, kernels=["head.weight"])
