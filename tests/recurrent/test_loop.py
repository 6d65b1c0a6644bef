"""Cells in a user's loop: which calls make a sequence, and what is unrolled of it."""

import pytest
import torch
from torch import Tensor, nn

from sparse_rnn.recurrent.capture import run_unrolled
from sparse_rnn.recurrent.layers import find_recurrent

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


@pytest.mark.parametrize(
    ("between", "lengths"),
    [
        (lambda t, h: h.detach().clone(), [6]),
        (lambda t, h: h * 0.5 if t == 1 else h, [2, 4]),
        (lambda t, h: h.mul_(0.5) if t == 1 else h, [2, 4]),
        (lambda t, h: None if t == 3 else h, [4, 2]),
        (lambda t, h: h * 0.9, [1] * 6),
    ],
    ids=["copied", "changed", "changed in place", "dropped", "always changed"],
)
def test_a_changed_state_begins_a_new_sequence(between, lengths):
    torch.manual_seed(0)
    model, x = Decoder(CELLS["gru"](), between), data(STEPS, BATCH, INPUTS)
    expected = model(x)
    # Where a state is changed in place, so is the output: the last one of each sequence is not compared.
    found = sequences(model, x)
    assert [len(unrolled.x_TBI) for unrolled in found] == lengths
    first = 0
    for unrolled, length in zip(found, lengths, strict=True):
        torch.testing.assert_close(unrolled.output_TBH[:-1], expected[first : first + length - 1])
        first += length


def test_each_changed_state_is_where_its_sequence_begins():
    torch.manual_seed(0)
    model, x = Decoder(CELLS["gru"](), lambda t, h: h * 0.9), data(STEPS, BATCH, INPUTS)
    outputs = model(x)
    for t, unrolled in enumerate(sequences(model, x)[1:], start=1):
        torch.testing.assert_close(unrolled.states[0][0], outputs[t - 1] * 0.9)
        torch.testing.assert_close(unrolled.output_TBH[0], outputs[t])


def test_only_one_of_two_states_changed_begins_a_new_sequence():
    model = Decoder(CELLS["lstm"](), lambda t, s: (s[0], s[1] * 0.5) if t == 2 else s)
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


def test_a_cell_with_a_forward_of_its_own_is_refused_and_no_forward_is_left_replaced():
    class Mine(nn.LSTMCell):
        def forward(self, x, state=None):
            return super().forward(2 * x, state)

    model = nn.ModuleList([nn.LSTMCell(INPUTS, UNITS), Mine(INPUTS, UNITS)])
    with pytest.raises(ValueError, match=r"Mine has a forward of its own.*register_cell"):
        run_unrolled(model, find_recurrent(model), torch.zeros(BATCH, INPUTS))
    assert all("forward" not in vars(cell) for cell in model)


def test_a_cell_that_is_never_called_is_named():
    model = Decoder(CELLS["gru"]())
    model.unused = nn.GRUCell(2, 2)
    with pytest.raises(ValueError, match="recurrent layer 'unused' received no input"):
        sequences(model, data(STEPS, BATCH, INPUTS))
