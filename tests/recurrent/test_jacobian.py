"""Unrolled layers and the factored Jacobian of their steps against autograd, in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from sparse_rnn.recurrent.jacobian import StepJacobian
from sparse_rnn.recurrent.layers import find_recurrent
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.unroll import CHUNK, Unrolled, gains

INPUTS, UNITS, BATCH = 3, 5, 2
MODULES = {
    "rnn_tanh": nn.RNN(INPUTS, UNITS),
    "rnn_relu": nn.RNN(INPUTS, UNITS, nonlinearity="relu"),
    "gru": nn.GRU(INPUTS, UNITS),
    "lstm": nn.LSTM(INPUTS, UNITS),
    "peephole_lstm": PeepholeLSTM(INPUTS, UNITS),
    "diagonal_peephole_lstm": PeepholeLSTM(INPUTS, UNITS, peepholes="diagonal"),
}


def unrolled_step(cell: str) -> Unrolled:
    torch.manual_seed(0)
    (layer,) = find_recurrent(MODULES[cell].double())[0].layers[0]
    state = tuple(torch.randn(BATCH, UNITS, dtype=torch.float64) for _ in layer.cell.states)
    return Unrolled(layer, torch.randn(1, BATCH, INPUTS, dtype=torch.float64), state)


def factored(unrolled: Unrolled, observed: range) -> StepJacobian:
    return StepJacobian(unrolled, unrolled.weights, gains(*unrolled.replay(0)), observed)


def explicit(unrolled: Unrolled, b: int, observed: int) -> Tensor:
    layer = unrolled.layer
    old = [state[0, b : b + 1] for state in unrolled.states]

    def project(**inputs: Tensor) -> Tensor:
        return sum(value @ layer.weights[r].T + layer.biases.get(r, 0) for r, value in inputs.items())

    def step(free: Tensor) -> Tensor:
        states = (*(part[None] for part in free.split(UNITS)), *old[observed:])
        return torch.cat(layer.cell.step(project, unrolled.x_TBI[0, b : b + 1], states)[:observed], dim=-1)[0]

    return jacobian(step, torch.cat([s[0] for s in old[:observed]])).detach()


@pytest.mark.parametrize("observe_all", [False, True])
@pytest.mark.parametrize("cell", MODULES)
def test_products_and_norm_equal_the_explicit_jacobian(cell, observe_all):
    unrolled = unrolled_step(cell)
    observed = range(len(unrolled.states) if observe_all else 1)
    step = factored(unrolled, observed)
    q = torch.randn(BATCH, len(observed) * UNITS, dtype=torch.float64)
    parts = q.split(UNITS, dim=-1)
    for b in range(BATCH):
        J = explicit(unrolled, b, len(observed))
        torch.testing.assert_close(torch.cat(step.jvp(parts), -1)[b], J @ q[b], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(torch.cat(step.vjp(parts), -1)[b], J.T @ q[b], rtol=1e-10, atol=1e-12)
        singular = torch.linalg.svdvals(J)
        torch.testing.assert_close(step.squared_sum()[b], singular.square().sum(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", MODULES)
def test_unrolling_gives_the_outputs_of_the_module(cell):
    torch.manual_seed(0)
    module = MODULES[cell].double()
    (layer,) = find_recurrent(module)[0].layers[0]
    x = torch.randn(CHUNK + 3, BATCH, INPUTS, dtype=torch.float64)
    torch.testing.assert_close(Unrolled(layer, x).output_TBH, module(x)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", MODULES)
def test_gradients_through_time_are_those_of_autograd(cell):
    """Over more than one chunk, for functionals that begin at different steps."""
    torch.manual_seed(0)
    module = MODULES[cell].double()
    (layer,) = find_recurrent(module)[0].layers[0]
    steps = 2 * CHUNK + 3
    x = torch.randn(steps, BATCH, INPUTS, dtype=torch.float64)
    weight = torch.randn(2, BATCH, UNITS, dtype=torch.float64)
    begins = {steps - 1: 0, steps - CHUNK: 1}

    def cotangents(t: int) -> tuple[Tensor, ...] | None:
        if t not in begins:
            return None
        rows = torch.zeros(begins[t] + 1, BATCH, UNITS, dtype=torch.float64)
        rows[begins[t]] = weight[begins[t]]
        return (rows,)

    unrolled = Unrolled(layer, x)
    actual = [unrolled.no_gradients() for _ in range(2)]
    unrolled.backpropagate(cotangents, actual, stop=steps)
    for t, r in begins.items():
        value = (module(x)[0][t] * weight[r]).sum()
        expected = torch.autograd.grad(value, list(layer.weights.values()))
        for role, gradient in zip(layer.weights, expected, strict=True):
            torch.testing.assert_close(actual[r][role].t(), gradient, rtol=1e-10, atol=1e-12)
