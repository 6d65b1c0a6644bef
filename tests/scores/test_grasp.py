"""GraSP against explicit gradients and Hessians, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from sparse_rnn import GraSP
from sparse_rnn.recurrent.kernels import find_targets


@pytest.mark.each_value
@pytest.mark.parametrize("temperature", [1.0, 200.0])
@pytest.mark.parametrize("kwargs", [{}, {"num_layers": 2, "bidirectional": True}, {"packed": True}], ids=str)
@pytest.mark.parametrize("kind", ["rnn", "gru", "gru_reset_before", "lstm", "peephole_lstm"])
def test_grasp_is_weight_times_hessian_times_gradient(kind, kwargs, temperature, build, loss_fn, kernels):
    model, batch = build(kind, **kwargs)
    parameters = list(kernels(model).values())

    def gradient() -> Tensor:
        loss = cross_entropy(model(batch[0]) / temperature, batch[1])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    product = along(gradient(), parameters, gradient).split([p.numel() for p in parameters])
    scores = GraSP(temperature).score(model, batch, loss_fn, find_targets(model))
    scale = max(score.abs().max() for score in scores.values()).item()
    for (name, parameter), part in zip(kernels(model).items(), product, strict=True):
        expected = parameter.detach() * part.view_as(parameter)
        torch.testing.assert_close(scores[name], expected, rtol=1e-6, atol=1e-6 * scale)


def along(direction: Tensor, parameters: list[Tensor], gradient: Callable[[], Tensor]) -> Tensor:
    """Differentiate a gradient along a direction of all parameters, by central differences of the fourth order."""
    step = 1e-3 / direction.norm()
    start = [p.detach().clone() for p in parameters]
    parts = direction.split([p.numel() for p in parameters])

    def at(steps: float) -> Tensor:
        with torch.no_grad():
            for p, begun, part in zip(parameters, start, parts, strict=True):
                p.copy_(begun + steps * step * part.view_as(p))
        return gradient()

    product = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
    at(0)
    return product


def test_grasp_takes_the_gradient_and_the_hessian_of_the_same_dropout(build, loss_fn):
    model, batch = build("gru")
    model.head = nn.Sequential(nn.Dropout(0.5), model.head)
    torch.manual_seed(7)
    actual = GraSP(1.0).score(model, batch, loss_fn, find_targets(model))["rnn.weight_hh_l0"]
    kept = nn.Dropout(0.5)
    torch.manual_seed(7)
    mask = kept(torch.ones(len(batch[1]), model.rnn.hidden_size, dtype=torch.float64))
    model.head[0] = nn.Identity()
    expected = GraSP(1.0).score(
        model, batch, lambda m, b: cross_entropy(m.head(m.rnn(b[0])[0].mean(0) * mask), b[1]), find_targets(model)
    )["rnn.weight_hh_l0"]
    torch.testing.assert_close(actual, expected)


def test_a_loss_that_differs_from_call_to_call_is_taken_as_it_is_once(build, loss_fn):
    """As that of a sampled softmax, whose position in its samples is a buffer that moves on."""
    model, batch = build("rnn")
    expected = GraSP().score(model, batch, loss_fn, find_targets(model))
    factors = iter([1.0])
    actual = GraSP().score(model, batch, lambda *given: next(factors) * loss_fn(*given), find_targets(model))
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_a_loss_without_a_cross_entropy_is_not_cooled(build):
    model, batch = build("lstm")

    def squares(model, batch):
        return model(batch[0]).square().mean()

    cool, hot = (GraSP(t).score(model, batch, squares, find_targets(model)) for t in (1.0, 200.0))
    assert all(torch.equal(cool[name], hot[name]) for name in cool)


def test_the_temperature_is_gone_when_scores_are_there(build, loss_fn):
    model, batch = build("gru")
    before = loss_fn(model, batch)
    GraSP().score(model, batch, loss_fn, find_targets(model))
    assert torch.equal(loss_fn(model, batch), before)
    assert "forward" not in vars(model.rnn)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature={temperature}: give a number in "):
        GraSP(temperature)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.attention = nn.LSTM(3, 8), nn.MultiheadAttention(8, 2)

    def forward(self, x):
        h = self.rnn(x)[0]
        return self.attention(h, h, h, need_weights=False)[0]


@pytest.mark.parametrize("compiled", [False, True])
def test_grasp_runs_beside_fused_attention_and_on_compiled_models(compiled):
    def loss_fn(model, x):
        return model(x).square().mean()

    model, x = Attending(), torch.randn(6, 4, 3)
    with sdpa_kernel(SDPBackend.MATH):
        expected = GraSP().score(model, x, loss_fn, find_targets(model))
    if compiled:
        model = torch.compile(model, backend="aot_eager")
    actual = GraSP().score(model, x, loss_fn, find_targets(model))
    for name, score in expected.items():
        torch.testing.assert_close(actual[f"_orig_mod.{name}" if compiled else name], score)
