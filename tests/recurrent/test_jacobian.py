"""The factored Jacobian of a step against autograd, in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.gains import gains
from sparse_rnn.recurrent.jacobian import StepJacobian
from sparse_rnn.recurrent.unroll import Unrolled

INPUTS, UNITS, BATCH = 3, 5, 2


def unrolled_step(module: nn.Module) -> Unrolled:
    (layer,) = find_recurrent(module)[0].layers[0]
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
def test_products_and_norm_equal_the_explicit_jacobian(build, observe_all):
    unrolled = unrolled_step(build())
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
