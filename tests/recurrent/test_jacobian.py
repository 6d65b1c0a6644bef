"""The factored Jacobian of a step against the explicit one by autograd, in float64."""

import pytest
import torch
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from sparse_rnn.recurrent.cells import Cell
from sparse_rnn.recurrent.jacobian import StepJacobian
from sparse_rnn.recurrent.layers import find_recurrent
from sparse_rnn.recurrent.unroll import Projector, gains

INPUTS, UNITS, BATCH = 3, 5, 2
MODULES = {
    "rnn_tanh": nn.RNN(INPUTS, UNITS),
    "rnn_relu": nn.RNN(INPUTS, UNITS, nonlinearity="relu"),
    "gru": nn.GRU(INPUTS, UNITS),
    "lstm": nn.LSTM(INPUTS, UNITS),
    "peephole_lstm": PeepholeLSTM(INPUTS, UNITS),
    "diagonal_peephole_lstm": PeepholeLSTM(INPUTS, UNITS, peepholes="diagonal"),
}


def factored_and_explicit(cell: str, observe_all: bool) -> tuple[StepJacobian, list[Tensor]]:
    torch.manual_seed(0)
    module = MODULES[cell].double()
    (layer,) = find_recurrent(module)[0].layers[0]
    weights = {role: weight.detach() for role, weight in layer.weights.items()}
    x = torch.randn(BATCH, INPUTS, dtype=torch.float64)
    old = tuple(torch.randn(BATCH, UNITS, dtype=torch.float64).requires_grad_() for _ in layer.cell.states)
    project = Projector(layer, weights, detach=True)
    new = layer.cell.step(project, x, old)
    observed = range(len(old)) if observe_all else range(1)
    factored = StepJacobian(layer, weights, project.roles, gains(new, project.pre, old), observed)
    return factored, [_explicit(layer.cell, layer, weights, x, old, b, len(observed)) for b in range(BATCH)]


def _explicit(cell: Cell, layer, weights, x, old, b: int, observed: int) -> Tensor:
    def step(free: Tensor) -> Tensor:
        states = (*(part[None] for part in free.split(UNITS)), *(s[b : b + 1] for s in old[observed:]))
        return torch.cat(cell.step(Projector(layer, weights), x[b : b + 1], states)[:observed], dim=-1)[0]

    return jacobian(step, torch.cat([s[b] for s in old[:observed]])).detach()


@pytest.mark.parametrize("observe_all", [False, True])
@pytest.mark.parametrize("cell", MODULES)
def test_products_and_norm_equal_the_explicit_jacobian(cell, observe_all):
    factored, explicit = factored_and_explicit(cell, observe_all)
    states = len(factored.observed)
    q = torch.randn(BATCH, states * UNITS, dtype=torch.float64)
    parts = q.split(UNITS, dim=-1)
    for b, J in enumerate(explicit):
        torch.testing.assert_close(torch.cat(factored.jvp(parts), -1)[b], J @ q[b], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(torch.cat(factored.vjp(parts), -1)[b], J.T @ q[b], rtol=1e-10, atol=1e-12)
        singular = torch.linalg.svdvals(J)
        torch.testing.assert_close(factored.squared_sum()[b], singular.square().sum(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", MODULES)
def test_a_step_is_the_step_of_the_module(cell):
    torch.manual_seed(0)
    module = MODULES[cell].double()
    (layer,) = find_recurrent(module)[0].layers[0]
    x = torch.randn(BATCH, INPUTS, dtype=torch.float64)
    old = tuple(torch.randn(BATCH, UNITS, dtype=torch.float64) for _ in layer.cell.states)
    new = layer.cell.step(Projector(layer, layer.weights), x, old)
    hx = tuple(s[None] for s in old)
    _, expected = module(x[None], hx if len(hx) > 1 else hx[0])
    for actual, wanted in zip(new, expected if len(hx) > 1 else (expected,), strict=True):
        torch.testing.assert_close(actual, wanted[0], rtol=1e-12, atol=1e-12)
