"""Kernels that read what a step computes on its way: an LSTM's projection, a reset gate before the product."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence

from sparse_rnn import JacobianSpectrum, register_cell
from sparse_rnn.recurrent import registry
from sparse_rnn.recurrent.kernels import find_targets

BATCH, STEPS, INPUTS, UNITS, PROJECTED = 3, 11, 2, 4, 3


class ResetBeforeCell(nn.Module):
    """The GRU of Cho et al. 2014: n = tanh(W_in x + W_hn (r * h)); its input passes a gate of its own first."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.ParameterDict(
            {f"{role}{gate}": torch.zeros(UNITS, INPUTS if role == "i" else UNITS) for gate in "rzn" for role in "ih"}
        )
        self.b = nn.Parameter(torch.zeros(UNITS))
        self.scale = nn.Parameter(torch.zeros(INPUTS))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        W, scaled = self.W, x * self.scale
        r = torch.sigmoid(scaled @ W["ir"].T + h @ W["hr"].T)
        z = torch.sigmoid(x @ W["iz"].T + h @ W["hz"].T)
        return (1 - z) * torch.tanh(x @ W["in"].T + (r * h) @ W["hn"].T + self.b) + z * h


def reset_before(cell, project, x, state):
    (h,) = state
    r = torch.sigmoid(project(ir=x * cell.scale, hr=h))
    z = torch.sigmoid(project(iz=x, hz=h))
    return ((1 - z) * torch.tanh(project(**{"in": x, "hn": r * h})) + z * h,)


class Loop(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> None:
        h = x.new_zeros(x.shape[1], UNITS)
        for x_t in x:
            h = self.cell(x_t, h)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    roles = [role + gate for gate in "rzn" for role in "ih"]
    register_cell(ResetBeforeCell, step=reset_before, kernels={role: f"W.{role}" for role in roles}, biases={"in": "b"})


def build(kind: str, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    model = nn.LSTM(INPUTS, UNITS, proj_size=PROJECTED, **kwargs) if kind == "projected" else Loop(ResetBeforeCell())
    for parameter in model.double().parameters():
        nn.init.normal_(parameter, 0.1, 0.6)
    return model


def sizes(model: nn.Module) -> list[int]:
    return [PROJECTED, UNITS] if isinstance(model, nn.LSTM) else [UNITS]


def data() -> Tensor:
    return torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def run_step(model: nn.Module, parameters: dict, x_BI: Tensor, state: list[Tensor]) -> list[Tensor]:
    if isinstance(model, nn.LSTM):
        _, new = functional_call(model, parameters, (x_BI[None], tuple(part[None] for part in state)))
        return [part[0] for part in new]
    own = {name.removeprefix("cell."): p for name, p in parameters.items()}
    return [functional_call(model.cell, own, (x_BI, state[0]))]


def brute_chi(model, parameters, x, *, u, projection, observed, through_time) -> Tensor:
    state = [torch.zeros(x.shape[1], size, dtype=torch.float64) for size in sizes(model)]
    for t in range(len(x) - 1 - u):
        state = run_step(model, parameters, x[t], state)
    state = state if through_time else [part.detach() for part in state]
    total = 0
    for b in range(x.shape[1]):

        def step(free, b=b):
            parts = free.split(sizes(model)[:observed])
            full = [*(part[None] for part in parts), *(part[b : b + 1] for part in state[observed:])]
            new = run_step(model, parameters, x[len(x) - 1 - u, b : b + 1], full)
            return torch.cat([part[0] for part in new[:observed]])

        J = jacobian(step, torch.cat([part[b] for part in state[:observed]]), create_graph=True)
        v = {"jvp": J.sum(1), "vjp": J.sum(0), "exact": J.flatten()}[projection]
        total = total + v.square().sum() / len(J)
    return total / x.shape[1]


def brute(model, x, *, projection="jvp", observed=1, through_time=True) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    kernels = {name: p for name, p in parameters.items() if "weight" in name or "W." in name}
    result = {name: torch.zeros_like(p) for name, p in kernels.items()}
    for u in range(4):
        chi = brute_chi(model, parameters, x, u=u, projection=projection, observed=observed, through_time=through_time)
        grads = torch.autograd.grad(chi, list(kernels.values()), allow_unused=True, materialize_grads=True)
        for name, grad in zip(kernels, grads, strict=True):
            result[name] += grad.abs()
    return result


def assert_scores(actual: dict, expected: dict) -> None:
    assert actual.keys() == expected.keys()
    assert all(score.max() > 0 for score in expected.values())
    for name in expected:
        torch.testing.assert_close(
            actual[name], expected[name], rtol=1e-6, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.each_value
@pytest.mark.parametrize("through_time", [True, False])
@pytest.mark.parametrize("projection", ["jvp", "vjp", "exact"])
@pytest.mark.parametrize("kind", ["projected", "reset before"])
def test_sensitivity_equals_explicit_jacobians(kind, projection, through_time):
    model, x = build(kind), data()
    criterion = JacobianSpectrum.paper(projection=projection, gamma="none", through_time=through_time)
    actual = criterion.score(model, x, None, find_targets(model))
    assert_scores(
        actual,
        brute(model, x, projection=projection, through_time=through_time),
    )


@pytest.mark.parametrize("projection", ["jvp", "vjp", "exact"])
def test_states_of_different_sizes_can_be_observed_together(projection):
    model, x = build("projected"), data()
    criterion = JacobianSpectrum.paper(projection=projection, gamma="none", states="all")
    actual = criterion.score(model, x, None, find_targets(model))
    assert_scores(actual, brute(model, x, projection=projection, observed=2))


@pytest.mark.parametrize("gamma", ["sequence", "author"])
def test_gamma_of_a_projected_lstm(gamma):
    model, x = build("projected"), data()
    torch.manual_seed(5)
    actual = JacobianSpectrum.paper(gamma=gamma).score(model, x, None, find_targets(model))
    plain = JacobianSpectrum.paper(gamma="none").score(model, x, None, find_targets(model))
    torch.manual_seed(5)
    if gamma == "author":
        noise = (torch.randn(5, 100, INPUTS) * 0.1).double()
        hx = [(1 + torch.randn(100, size) * 0.1).double()[None] for size in sizes(model)]
        value = model(noise, tuple(hx))[0][-1].sum()
    else:
        value = model((torch.randn(STEPS, BATCH, INPUTS) * 0.1).double())[0].sum() / BATCH
    references = torch.autograd.grad(value, [model.get_parameter(name) for name in plain])
    expected = {name: plain[name] / reference.abs() for name, reference in zip(plain, references, strict=True)}
    assert_scores(actual, expected)


@pytest.mark.parametrize("suffix", ["l1", "l1_reverse"])
def test_upper_layers_and_packed_sequences_of_a_projected_lstm(suffix):
    model = build("projected", num_layers=2, bidirectional=True)
    lengths = [11, 4, 7]
    packed = pack_padded_sequence(data(), torch.tensor(lengths), enforce_sorted=False)
    scores = JacobianSpectrum.paper(gamma="none").score(model, packed, None, find_targets(model))
    below = nn.LSTM(INPUTS, UNITS, proj_size=PROJECTED, bidirectional=True).double()
    below.load_state_dict({name: p for name, p in model.state_dict().items() if "_l0" in name})
    alone = nn.LSTM(2 * PROJECTED, UNITS, proj_size=PROJECTED).double()
    own = {name: p for name, p in model.state_dict().items() if name.endswith(f"_{suffix}")}
    alone.load_state_dict({name.removesuffix(suffix) + "l0": p for name, p in own.items()})
    kernels = {name: p for name, p in alone.named_parameters() if "weight" in name}
    expected = {name: torch.zeros_like(kernel) for name, kernel in kernels.items()}
    for u in range(4):
        chi = 0
        for b, length in enumerate(lengths):
            inputs = below(data()[:length, b : b + 1])[0].detach()
            inputs = inputs.flip(0) if suffix.endswith("reverse") else inputs
            options = {"u": u, "projection": "jvp", "observed": 1, "through_time": True}
            chi += brute_chi(alone, dict(alone.named_parameters()), inputs, **options)
        for name, grad in zip(kernels, torch.autograd.grad(chi / BATCH, list(kernels.values())), strict=True):
            expected[name] += grad.abs()
    actual = {name.removesuffix(suffix) + "l0": s for name, s in scores.items() if name.endswith(f"_{suffix}")}
    assert_scores(actual, expected)
