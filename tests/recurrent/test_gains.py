"""Elementwise derivatives of steps against autograd, in float64."""

import pytest
import torch

from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.gains import gains
from sparse_rnn.recurrent.layers import layers_of
from sparse_rnn.recurrent.unroll import Unrolled


@pytest.fixture
def unrolled(build):
    (layer,) = layers_of(find_recurrent(build()))
    return Unrolled(layer, torch.randn(5, 2, 3, dtype=torch.float64))


@pytest.mark.parametrize("steps", [slice(1, 4), 2])
def test_gains_are_the_derivatives_of_steps(unrolled, steps):
    new, pre, old = unrolled.replay(steps)
    found = gains(*unrolled.replay(steps))
    for s, output in enumerate(new):
        for k, variable in enumerate(pre):
            (expected,) = torch.autograd.grad(output.sum(), variable, retain_graph=True, allow_unused=True)
            assert (expected is None) == (found.pre[s][k] is None)
            if expected is not None:
                torch.testing.assert_close(found.pre[s][k].flatten(-2), expected)
        for r, variable in enumerate(old):
            (expected,) = torch.autograd.grad(output.sum(), variable, retain_graph=True, allow_unused=True)
            assert (expected is None) == (found.state[s][r] is None)
            if expected is not None:
                torch.testing.assert_close(found.state[s][r], expected)


def test_two_states_may_be_one_tensor():
    pre, old = [torch.ones(2, 3, requires_grad=True)], (torch.ones(2, 3, requires_grad=True),) * 2
    new = 2 * pre[0] + old[0]
    found = gains((new, new), pre, old)
    assert [gain.unique().item() for (gain,) in found.pre] == [2, 2]


def test_they_are_cut_to_one_of_several_steps_and_to_some_samples(unrolled):
    several, one = gains(*unrolled.replay(slice(0, 5))), gains(*unrolled.replay(3))
    torch.testing.assert_close(several[3].pre, one.pre)
    torch.testing.assert_close(several[3].state, one.state)
    for row, whole in zip([*one[1:].pre, *one[1:].state], [*one.pre, *one.state], strict=True):
        assert [None if gain is None else gain.tolist() for gain in row] == [
            None if gain is None else gain[1:].tolist() for gain in whole
        ]
