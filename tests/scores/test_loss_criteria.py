"""SNIP and GraSP against explicit gradients and Hessians, in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence

from sparse_rnn import SNIP, GraSP, prune
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.recurrent.peephole import PeepholeLSTM

INPUTS, UNITS, CLASSES, BATCH, STEPS = 2, 3, 3, 5, 4
KINDS = {
    "rnn": lambda **kw: nn.RNN(INPUTS, UNITS, **kw),
    "gru": lambda **kw: nn.GRU(INPUTS, UNITS, **kw),
    "lstm": lambda **kw: nn.LSTM(INPUTS, UNITS, **kw),
    "peephole_lstm": lambda **kw: PeepholeLSTM(INPUTS, UNITS, **kw),
}


class Classifier(nn.Module):
    def __init__(self, kind: str, packed: bool = False, **kwargs) -> None:
        super().__init__()
        self.rnn = KINDS[kind](**kwargs)
        self.head = nn.Linear(UNITS * (2 if kwargs.get("bidirectional") else 1), CLASSES)
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        if not self.packed:
            return self.head(self.rnn(x)[0].mean(0))
        output, _ = self.rnn(pack_padded_sequence(x, torch.tensor([4, 2, 3, 1, 4]), enforce_sorted=False))
        return self.head(output.data).mean(0, keepdim=True).expand(BATCH, -1)


def build(kind: str, **kwargs) -> tuple[Classifier, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = Classifier(kind, **kwargs).double()
    return model, (torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64), torch.randint(CLASSES, (BATCH,)))


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


def kernels(model: Classifier) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if name.startswith("rnn.weight")}


def central_differences(model, batch, parameter, function, step=1e-5) -> Tensor:
    """d function / d parameter, one weight at a time; ``function`` may return a vector."""
    columns = []
    flat = parameter.data.view(-1)
    for i in range(len(flat)):
        value = flat[i].item()
        flat[i] = value + step
        above = function()
        flat[i] = value - step
        below = function()
        flat[i] = value
        columns.append((above - below) / (2 * step))
    return torch.stack(columns)


@pytest.mark.parametrize("kind", KINDS)
def test_snip_is_weight_times_gradient(kind):
    model, batch = build(kind)
    scores = SNIP().score(model, batch, loss_fn, find_targets(model))
    assert scores.keys() == kernels(model).keys()
    for name, parameter in kernels(model).items():
        with torch.no_grad():
            gradient = central_differences(model, batch, parameter, lambda: loss_fn(model, batch)).view_as(parameter)
            expected = (parameter * gradient).abs()
        torch.testing.assert_close(scores[name], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 200.0])
@pytest.mark.parametrize("kwargs", [{}, {"num_layers": 2, "bidirectional": True}, {"packed": True}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_grasp_is_weight_times_hessian_times_gradient(kind, kwargs, temperature):
    model, batch = build(kind, **kwargs)
    parameters = list(kernels(model).values())

    def gradient() -> Tensor:
        loss = cross_entropy(model(batch[0]) / temperature, batch[1])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    g = gradient()
    hessian = torch.cat([central_differences(model, batch, p, gradient) for p in parameters])
    product = (hessian @ g).split([p.numel() for p in parameters])
    scores = GraSP(temperature).score(model, batch, loss_fn, find_targets(model))
    scale = max(score.abs().max() for score in scores.values()).item()
    for (name, parameter), part in zip(kernels(model).items(), product, strict=True):
        expected = parameter.detach() * part.view_as(parameter)
        torch.testing.assert_close(scores[name], expected, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("criterion", [SNIP, GraSP])
def test_gamma_divides_by_what_the_jacobian_divides_by(criterion):
    from sparse_rnn import JacobianSpectrum

    model, batch = build("gru")

    def scores(of):
        torch.manual_seed(3)
        return of.score(model, batch, loss_fn, find_targets(model))["rnn.weight_hh_l0"]

    gamma = scores(JacobianSpectrum(gamma="none")) / scores(JacobianSpectrum(gamma="sequence"))
    torch.testing.assert_close(scores(criterion(gamma="sequence")) * gamma, scores(criterion()), rtol=1e-9, atol=0)


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_weights_beyond_recurrent_layers_and_frozen_ones_are_scored(criterion):
    model, batch = build("lstm")
    model.rnn.weight_hh_l0.requires_grad_(False)
    masks = prune(model, batch, sparsity=0.5, criterion=criterion, loss_fn=loss_fn, kernels=["head*", "*hh*"])
    assert set(masks) == {"head.weight", "rnn.weight_hh_l0"}
    assert not model.rnn.weight_hh_l0.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("criterion", [SNIP(gamma="sequence"), GraSP(gamma="author")])
def test_gamma_is_refused_beyond_recurrent_kernels(criterion):
    model, batch = build("gru")
    with pytest.raises(ValueError, match=r"recurrent kernels only, and head\.weight is none"):
        prune(model, batch, sparsity=0.5, criterion=criterion, loss_fn=loss_fn, kernels=["head.weight"])


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_without_a_usable_loss_there_is_a_sentence(criterion):
    model, batch = build("gru")
    with pytest.raises(ValueError, match="needs a loss: give loss_fn"):
        prune(model, batch[0], sparsity=0.5, criterion=criterion)
    with pytest.raises(ValueError, match=r"The loss is a tensor of shape \(5, 3\)"):
        prune(model, batch, sparsity=0.5, criterion=criterion, loss_fn=lambda m, b: m(b[0]))
    with pytest.raises(ValueError, match="The loss is a NoneType"):
        prune(model, batch, sparsity=0.5, criterion=criterion, loss_fn=lambda m, b: None)


def test_grasp_drops_out_the_same_units_in_both_passes():
    model, batch = build("gru")
    model.head = nn.Sequential(nn.Dropout(0.5), model.head)
    torch.manual_seed(7)
    actual = GraSP(1.0).score(model, batch, loss_fn, find_targets(model))["rnn.weight_hh_l0"]
    kept = nn.Dropout(0.5)
    torch.manual_seed(7)
    mask = kept(torch.ones(BATCH, UNITS, dtype=torch.float64))
    model.head[0] = nn.Identity()
    expected = GraSP(1.0).score(
        model, batch, lambda m, b: cross_entropy(m.head(m.rnn(b[0])[0].mean(0) * mask), b[1]), find_targets(model)
    )["rnn.weight_hh_l0"]
    torch.testing.assert_close(actual, expected)


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
