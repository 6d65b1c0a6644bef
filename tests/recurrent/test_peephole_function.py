"""The hand-written backward pass against autograd through the equations, in the packed layout of its rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.peephole_function import (
    PeepholeFunction,
    _fused_steps,
    _plain_steps,
)

INPUTS, UNITS = 3, 4
NAMES = ("x", "h_0", "c_0", "weight_ih", "weight_hh", "bias")
batch_sizes = st.lists(st.integers(1, 4), min_size=1, max_size=6).map(lambda sizes: sorted(sizes, reverse=True))


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def arguments(sizes: list[int], form: str, bias: bool) -> dict[str, Tensor | None]:
    """Random tensors for the function, in the order of its arguments."""
    shapes = {
        "x": (sum(sizes), INPUTS),
        "h_0": (sizes[0], UNITS),
        "c_0": (sizes[0], UNITS),
        "weight_ih": (4 * UNITS, INPUTS),
        "weight_hh": (4 * UNITS, UNITS),
        "weight_ch": (4 * UNITS, UNITS) if form == "full" else None,
        "peephole": (3, UNITS) if form == "diagonal" else None,
        "bias": (4 * UNITS,) if bias else None,
    }
    return {name: None if shape is None else randn(*shape).requires_grad_() for name, shape in shapes.items()}


def equations(x, h_0, c_0, weight_ih, weight_hh, weight_ch, peephole, bias, sizes) -> tuple[Tensor, Tensor, Tensor]:
    """One sequence after the other, one step after the other."""
    rows = {(t, b): sum(sizes[:t]) + b for t, size in enumerate(sizes) for b in range(size)}
    outputs: dict[int, Tensor] = {}
    last_h, last_c = [], []
    for b in range(sizes[0]):
        h, c = h_0[b], c_0[b]
        for t in range(sum(size > b for size in sizes)):
            z = weight_ih @ x[rows[t, b]] + weight_hh @ h + (0 if bias is None else bias)
            if weight_ch is not None:
                z = z + weight_ch @ c
            i, f, g, o = z.view(4, UNITS)
            if peephole is not None:
                i, f = i + peephole[0] * c, f + peephole[1] * c
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            if peephole is not None:
                o = o + peephole[2] * c
            h = o.sigmoid() * c.tanh()
            outputs[rows[t, b]] = h
        last_h.append(h)
        last_c.append(c)
    return torch.stack([outputs[row] for row in range(len(x))]), torch.stack(last_h), torch.stack(last_c)


def weighed(outputs: tuple[Tensor, ...]) -> Tensor:
    """A loss that weighs every entry differently."""
    return sum((out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)).sum() for out in outputs)


@settings(max_examples=40)
@given(batch_sizes, st.sampled_from(["full", "diagonal"]), st.booleans(), st.integers(0, 99))
def test_it_follows_the_equations_forward_and_backward(sizes, form, bias, seed):
    torch.manual_seed(seed)
    given_ = arguments(sizes, form, bias)
    actual = PeepholeFunction.apply(*given_.values(), sizes)
    expected = equations(*given_.values(), sizes)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    sources = [value for value in given_.values() if value is not None]
    of_ours, of_theirs = (torch.autograd.grad(weighed(outputs), sources) for outputs in (actual, expected))
    torch.testing.assert_close(of_ours, of_theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("form", "wanted"),
    [("full", name) for name in (*NAMES, "weight_ch")] + [("diagonal", name) for name in (*NAMES, "peephole")],
)
def test_one_argument_alone_may_need_a_gradient(form, wanted):
    torch.manual_seed(0)
    sizes, given_ = [3, 2, 2, 1], arguments([3, 2, 2, 1], form, True)
    (expected,) = torch.autograd.grad(weighed(equations(*given_.values(), sizes)), given_[wanted])
    for name, value in given_.items():
        if value is not None:
            value.requires_grad_(name == wanted)
    (actual,) = torch.autograd.grad(weighed(PeepholeFunction.apply(*given_.values(), sizes)), given_[wanted])
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_neither_pass_changes_what_it_is_given(form):
    torch.manual_seed(0)
    sizes, given_ = [2, 2, 1], arguments([2, 2, 1], form, True)
    before = {name: value.detach().clone() for name, value in given_.items() if value is not None}
    outputs = PeepholeFunction.apply(*given_.values(), sizes)
    incoming = [randn(*out.shape) for out in outputs]
    kept = [gradient.clone() for gradient in incoming]
    torch.autograd.backward(outputs, incoming)
    assert all(torch.equal(given_[name], value) for name, value in before.items())
    assert all(map(torch.equal, incoming, kept))


@pytest.mark.parametrize("peepholes", ["full", "diagonal"])
def test_a_second_derivative_is_refused_not_wrong(peepholes):
    lstm = PeepholeLSTM(INPUTS, UNITS, peepholes=peepholes, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="PeepholeLSTM can be differentiated only once"):
        torch.autograd.grad(lstm(randn(5, 3, INPUTS))[0].sum(), lstm.weight_hh_l0, create_graph=True)


def test_fused_steps_agree_with_plain_steps(monkeypatch):
    """The loop of the CUDA branch, on a CPU, with the fused operation written out."""

    def fused(input_gates: Tensor, hidden_gates: Tensor, cx: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        i, f, g, o = (input_gates + hidden_gates).chunk(4, dim=1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        cy = f * cx + i * g
        return o * cy.tanh(), cy, torch.cat((i, f, g, o), dim=1)

    monkeypatch.setattr(torch.ops.aten, "_thnn_fused_lstm_cell", fused)
    sizes = [3, 3, 2, 1]
    gates, states, recurrent = randn(9, 4 * UNITS), randn(12, 2 * UNITS), randn(2 * UNITS, 4 * UNITS)
    plain_states = states.clone()
    fused_gates = _fused_steps(gates, states, recurrent, sizes)
    _plain_steps(gates, plain_states, recurrent, None, sizes)
    torch.testing.assert_close([fused_gates, states], [gates, plain_states], rtol=0, atol=1e-12)
