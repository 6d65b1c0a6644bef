"""The hand-written backward pass against autograd through the equations, in the packed layout of its rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_rnn.recurrent.reset_before_function import ResetBeforeFunction

INPUTS, UNITS = 3, 4
NAMES = ("x", "h_0", "weight_ih", "weight_hh", "bias")
batch_sizes = st.lists(st.integers(1, 4), min_size=1, max_size=6).map(lambda sizes: sorted(sizes, reverse=True))


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def arguments(sizes: list[int], bias: bool) -> dict[str, Tensor | None]:
    """Random tensors for the function, in the order of its arguments."""
    shapes = {
        "x": (sum(sizes), INPUTS),
        "h_0": (sizes[0], UNITS),
        "weight_ih": (3 * UNITS, INPUTS),
        "weight_hh": (3 * UNITS, UNITS),
        "bias": (3 * UNITS,) if bias else None,
    }
    return {name: None if shape is None else randn(*shape).requires_grad_() for name, shape in shapes.items()}


def equations(x, h_0, weight_ih, weight_hh, bias, sizes) -> tuple[Tensor, Tensor]:
    """One sequence after the other, one step after the other."""
    rows = {(t, b): sum(sizes[:t]) + b for t, size in enumerate(sizes) for b in range(size)}
    w_r, w_z, w_n = weight_hh.view(3, UNITS, UNITS)
    outputs: dict[int, Tensor] = {}
    last = []
    for b in range(sizes[0]):
        h = h_0[b]
        for t in range(sum(size > b for size in sizes)):
            x_r, x_z, x_n = (weight_ih @ x[rows[t, b]] + (0 if bias is None else bias)).view(3, UNITS)
            r, z = (x_r + w_r @ h).sigmoid(), (x_z + w_z @ h).sigmoid()
            h = (1 - z) * (x_n + w_n @ (r * h)).tanh() + z * h
            outputs[rows[t, b]] = h
        last.append(h)
    return torch.stack([outputs[row] for row in range(len(x))]), torch.stack(last)


def weighed(outputs: tuple[Tensor, ...]) -> Tensor:
    """A loss that weighs every entry differently."""
    return sum((out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)).sum() for out in outputs)


@settings(max_examples=40)
@given(batch_sizes, st.booleans(), st.integers(0, 99))
def test_it_follows_the_equations_forward_and_backward(sizes, bias, seed):
    torch.manual_seed(seed)
    given_ = arguments(sizes, bias)
    actual = ResetBeforeFunction.apply(*given_.values(), sizes)
    expected = equations(*given_.values(), sizes)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    sources = [value for value in given_.values() if value is not None]
    of_ours, of_theirs = (torch.autograd.grad(weighed(outputs), sources) for outputs in (actual, expected))
    torch.testing.assert_close(of_ours, of_theirs, rtol=0, atol=1e-10)


def test_gradients_agree_with_finite_differences():
    torch.manual_seed(0)
    given_ = tuple(arguments([3, 2, 1], True).values())
    assert torch.autograd.gradcheck(lambda *tensors: ResetBeforeFunction.apply(*tensors, [3, 2, 1]), given_)


@pytest.mark.parametrize("wanted", NAMES)
def test_one_argument_alone_may_need_a_gradient(wanted):
    torch.manual_seed(0)
    sizes, given_ = [3, 2, 2, 1], arguments([3, 2, 2, 1], True)
    (expected,) = torch.autograd.grad(weighed(equations(*given_.values(), sizes)), given_[wanted])
    for name, value in given_.items():
        value.requires_grad_(name == wanted)
    (actual,) = torch.autograd.grad(weighed(ResetBeforeFunction.apply(*given_.values(), sizes)), given_[wanted])
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


def test_neither_pass_changes_what_it_is_given():
    torch.manual_seed(0)
    sizes, given_ = [2, 2, 1], arguments([2, 2, 1], True)
    before = {name: value.detach().clone() for name, value in given_.items()}
    outputs = ResetBeforeFunction.apply(*given_.values(), sizes)
    incoming = [randn(*out.shape) for out in outputs]
    kept = [gradient.clone() for gradient in incoming]
    torch.autograd.backward(outputs, incoming)
    assert all(torch.equal(given_[name], value) for name, value in before.items())
    assert all(map(torch.equal, incoming, kept))


def test_changing_the_outputs_in_place_does_not_change_gradients():
    torch.manual_seed(0)
    given_ = arguments([2, 1], True)
    gradients = []
    for in_place in (False, True):
        outputs = ResetBeforeFunction.apply(*given_.values(), [2, 1])
        loss = weighed(outputs)
        if in_place:
            for output in outputs:
                output.detach().zero_()
        gradients.append(torch.autograd.grad(loss, list(given_.values())))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)
