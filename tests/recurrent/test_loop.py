"""Cells in a user's loop: which calls make a sequence, and what is unrolled of it."""

import pytest
import torch
from torch import Tensor, nn

from sparse_rnn import register_cell
from sparse_rnn.recurrent import registry
from sparse_rnn.recurrent.capture import run_unrolled
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.spectrum import product_singular_values

INPUTS, UNITS, STEPS, BATCH = 3, 5, 6, 4
CELLS = {
    "rnn_tanh": lambda **kw: nn.RNNCell(INPUTS, UNITS, **kw),
    "rnn_relu": lambda **kw: nn.RNNCell(INPUTS, UNITS, nonlinearity="relu", **kw),
    "gru": lambda **kw: nn.GRUCell(INPUTS, UNITS, **kw),
    "lstm": lambda **kw: nn.LSTMCell(INPUTS, UNITS, **kw),
}


class Decoder(nn.Module):
    """Runs a cell step by step; ``between`` may do something to the state."""

    def __init__(self, cell: nn.Module, between=lambda t, state: state) -> None:
        super().__init__()
        self.cell = cell.double()
        self.between = between

    def forward(self, x: Tensor, state=None) -> Tensor:
        self.outputs = []
        for t, x_t in enumerate(x):
            state = self.cell(x_t, state)
            self.outputs.append(state[0] if isinstance(state, tuple) else state)
            state = self.between(t, state)
        return torch.stack(self.outputs)


def data(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def sequences(model: nn.Module, *batch) -> list:
    return run_unrolled(model, find_recurrent(model), batch)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_a_loop_is_one_sequence_with_the_states_of_the_loop(kind, with_state, bias):
    torch.manual_seed(0)
    model, x = Decoder(CELLS[kind](bias=bias)), data(STEPS, BATCH, INPUTS)
    h, c = data(2, BATCH, UNITS)
    state = ((h, c) if kind == "lstm" else h) if with_state else None
    expected = model(x, state)
    (unrolled,) = sequences(model, x, state)
    torch.testing.assert_close(torch.stack(model.outputs), expected)
    torch.testing.assert_close(unrolled.output_TBH, expected)
    torch.testing.assert_close(unrolled.x_TBI, x)
    assert "forward" not in vars(model.cell)


def masked(t: int, h: Tensor) -> Tensor:
    return h * (torch.arange(len(h)) != t).unsqueeze(1)


@pytest.mark.parametrize(
    ("between", "lengths"),
    [
        (lambda t, h: h.detach().clone(), [6]),
        (lambda t, h: torch.zeros_like(h) if t == 1 else h, [2, 4]),
        (lambda t, h: torch.tanh(h + 1) if t == 1 else h, [2, 4]),
        (lambda t, h: -h if t == 1 else h, [2, 4]),
        (lambda t, h: None if t == 3 else h, [4, 2]),
        (lambda t, h: torch.sin(h + 1), [1] * 6),
    ],
    ids=["copied", "zeros", "fed into", "turned round", "dropped", "always another"],
)
def test_another_state_begins_a_new_sequence(between, lengths):
    torch.manual_seed(0)
    model, x = Decoder(CELLS["gru"](), between), data(STEPS, BATCH, INPUTS)
    expected = model(x)
    found = sequences(model, x)
    assert [len(unrolled.x_TBI) for unrolled in found] == lengths
    torch.testing.assert_close(torch.cat([unrolled.output_TBH for unrolled in found]), expected)


@pytest.mark.parametrize(
    "between",
    [
        lambda t, h: h * 0.5 if t == 1 else h,
        lambda t, h: h.mul_(0.5) if t == 1 else h,
        lambda t, h: h * torch.linspace(0, 1, UNITS, dtype=h.dtype),
        lambda t, h: 2 * masked(t, h),
        lambda t, h: (h * 0.9).detach(),
        masked,
    ],
    ids=["once", "in place", "each unit", "dropped out", "always", "samples begin anew"],
)
@pytest.mark.parametrize("kind", ["rnn_relu", "gru"])
def test_a_state_that_is_multiplied_unit_by_unit_goes_on(kind, between):
    torch.manual_seed(0)
    model, x = Decoder(CELLS[kind](), between), data(STEPS, BATCH, INPUTS)
    model(x)
    given = [between(t, h.clone()) for t, h in enumerate(sequences(Decoder(CELLS[kind]()), x)[0].states[0][1:])]
    assert len(given) == STEPS
    [unrolled] = sequences(model, x)
    for t in range(1, STEPS):
        torch.testing.assert_close(unrolled.before[0][t], between(t - 1, unrolled.states[0][t].clone()))


def test_backpropagation_goes_through_what_a_state_is_multiplied_by():
    torch.manual_seed(0)
    factor = torch.rand(STEPS, BATCH, UNITS, dtype=torch.float64)
    model, x = Decoder(CELLS["gru"](), lambda t, h: h * factor[t]), data(STEPS, BATCH, INPUTS)
    expected = torch.autograd.grad(model(x)[-1].sum(), [model.cell.weight_ih, model.cell.weight_hh])
    [unrolled] = sequences(model, x)
    gradients = unrolled.no_gradients()
    one = torch.ones((), dtype=torch.float64)
    unrolled.backpropagate(lambda t: (one,) if t == STEPS - 1 else None, [gradients], STEPS)
    for role, wanted in zip(("ih", "hh"), expected, strict=True):
        torch.testing.assert_close(gradients[role].t(), wanted)


def test_the_jacobian_of_several_steps_has_what_a_state_is_multiplied_by():
    torch.manual_seed(0)
    factor = torch.rand(BATCH, UNITS, dtype=torch.float64)
    model, x = Decoder(CELLS["gru"](), lambda t, h: h * factor), data(STEPS, BATCH, INPUTS)
    [unrolled] = sequences(model, x)
    h = unrolled.states[0][STEPS - 2, :1].clone()

    def two_steps(h: Tensor) -> Tensor:
        for t in (STEPS - 2, STEPS - 1):
            h = model.cell(x[t, :1], h * factor[:1])
        return h

    whole = torch.autograd.functional.jacobian(two_steps, h)[0, :, 0]
    # From the state that the first of them is given: what is done before it does not lie between them.
    expected = torch.linalg.svdvals(whole / factor[0])
    found = product_singular_values(unrolled, [2], samples=1)[2][0]
    torch.testing.assert_close(found, expected)


def test_only_one_of_two_states_may_be_multiplied():
    model = Decoder(CELLS["lstm"](), lambda t, s: (s[0], s[1] * 0.5) if t == 2 else s)
    assert [len(u.x_TBI) for u in sequences(model, data(STEPS, BATCH, INPUTS))] == [STEPS]
    model = Decoder(CELLS["lstm"](), lambda t, s: (s[0], torch.cos(s[1])) if t == 2 else s)
    assert [len(u.x_TBI) for u in sequences(model, data(STEPS, BATCH, INPUTS))] == [3, 3]


def test_fewer_samples_begin_a_new_sequence():
    class Shrinking(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(INPUTS, UNITS).double()

        def forward(self, x):
            h = None
            for t, x_t in enumerate(x):
                size = BATCH if t < 4 else 2
                h = self.cell(x_t[:size], None if h is None else h[:size])

    found = sequences(Shrinking(), data(STEPS, BATCH, INPUTS))
    assert [tuple(u.x_TBI.shape[:2]) for u in found] == [(4, BATCH), (2, 2)]


def test_loops_that_interleave_are_told_apart_and_a_state_is_continued_once():
    class TwoWays(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(INPUTS, UNITS).double()

        def forward(self, x):
            start = self.cell(x[0])
            a, b = start, start
            for t in range(1, STEPS):
                a, b = self.cell(x[t], a), self.cell(-x[t], b)
            self.ends = a, b

    model = TwoWays()
    found = sequences(model, data(STEPS, BATCH, INPUTS))
    assert [len(u.x_TBI) for u in found] == [STEPS, STEPS - 1]
    for unrolled, end in zip(found, model.ends, strict=True):
        torch.testing.assert_close(unrolled.output_TBH[-1], end)


def test_stacked_cells_are_each_their_own():
    class Stacked(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = nn.ModuleList([nn.LSTMCell(INPUTS, UNITS), nn.LSTMCell(UNITS, UNITS)]).double()

        def forward(self, x):
            states = [None, None]
            for x_t in x:
                for depth, cell in enumerate(self.cells):
                    states[depth] = cell(x_t, states[depth])
                    x_t = states[depth][0]

    found = sequences(Stacked(), data(STEPS, BATCH, INPUTS))
    assert [u.layer.kernels["hh"] for u in found] == ["cells.0.weight_hh", "cells.1.weight_hh"]
    torch.testing.assert_close(found[1].x_TBI, found[0].output_TBH)


def test_one_sample_without_a_batch():
    model, x = Decoder(CELLS["lstm"]()), data(STEPS, INPUTS)
    expected = model(x)
    (unrolled,) = sequences(model, x)
    torch.testing.assert_close(unrolled.output_TBH.squeeze(1), expected)


def test_autocast_does_not_reach_the_steps():
    model, x = Decoder(CELLS["lstm"]()).float(), data(STEPS, BATCH, INPUTS).float()
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        (unrolled,) = sequences(model, x.bfloat16().float())
    torch.testing.assert_close(unrolled.output_TBH, expected, rtol=0.1, atol=0.1)
    assert unrolled.output_TBH.dtype == torch.float32
    assert len(unrolled.x_TBI) == STEPS


def test_a_cell_whose_forward_wraps_that_of_its_class_is_joined_and_no_forward_is_left_replaced():
    class Mine(nn.LSTMCell):
        def forward(self, x, state=None):
            return super().forward(2 * x, state)

    before = nn.LSTMCell.forward
    torch.manual_seed(0)
    model, x = Decoder(Mine(INPUTS, UNITS)), data(STEPS, BATCH, INPUTS)
    [unrolled] = sequences(model, x)
    torch.testing.assert_close(unrolled.x_TBI, 2 * x)
    torch.testing.assert_close(unrolled.output_TBH, model(x))
    assert nn.LSTMCell.forward is before


@pytest.mark.parametrize(
    "call",
    [
        lambda cell, x, h: cell(x, h, 2.0, shift=1.0),
        lambda cell, x, h: cell(input=x, shift=1.0, scale=2.0, hx=h),
        lambda cell, x, h: cell(x, shift=1.0, scale=2.0) if h is None else cell(x, h, 2.0, shift=1.0),
        lambda cell, x, h: cell(x, None, 2.0, shift=1.0) if h is None else cell(x, h, scale=2.0, shift=1.0),
    ],
)
def test_further_arguments_of_a_cell_reach_its_forward(call):
    class Mine(nn.GRUCell):
        def forward(self, input, hx=None, scale=1.0, *, shift):
            return super().forward(scale * input + shift, hx)

    class Loop(Decoder):
        def forward(self, x):
            outputs = []
            for x_t in x:
                outputs.append(call(self.cell, x_t, outputs[-1] if outputs else None))
            return torch.stack(outputs)

    model, x = Loop(Mine(INPUTS, UNITS)), data(STEPS, BATCH, INPUTS)
    [unrolled] = sequences(model, x)
    torch.testing.assert_close(unrolled.x_TBI, 2 * x + 1)
    torch.testing.assert_close(unrolled.output_TBH, model(x))


def test_a_cell_whose_forward_is_another_is_refused():
    class Mine(nn.GRUCell):
        def forward(self, x, state=None):
            return torch.tanh(x @ self.weight_ih[:UNITS].t())

    with pytest.raises(ValueError, match=r"Mine has a forward of its own that does not call GRUCell's.*register_cell"):
        sequences(Decoder(Mine(INPUTS, UNITS)), data(STEPS, BATCH, INPUTS))


def test_a_cell_that_is_never_called_is_named():
    model = Decoder(CELLS["gru"]())
    model.unused = nn.GRUCell(2, 2)
    with pytest.raises(ValueError, match="recurrent layer 'unused' received no input"):
        sequences(model, data(STEPS, BATCH, INPUTS))


def test_a_cell_that_changes_its_state_in_place_is_given_the_old_one(monkeypatch):
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W, self.U = nn.Parameter(torch.rand(UNITS, INPUTS)), nn.Parameter(torch.rand(UNITS, UNITS))

        def forward(self, x, h):
            return h.mul_(0.9).add_(0.1 * torch.tanh(x @ self.W.T + h / 0.9 @ self.U.T))

    def step(module, project, x, state):
        return (0.9 * state[0] + 0.1 * torch.tanh(project(ih=x, hh=state[0])),)

    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    register_cell(InPlace, step=step, kernels={"ih": "W", "hh": "U"})
    model, start = Decoder(InPlace()), data(BATCH, UNITS)
    (unrolled,) = sequences(model, data(STEPS, BATCH, INPUTS), start.clone())
    torch.testing.assert_close(unrolled.states[0][0], start)
