"""One step of every cell against PyTorch's own cells and against the equations, in float64."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from sparse_rnn.recurrent import cells
from sparse_rnn.recurrent.cells import RESET_STATE, Cell, Part
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

BATCH, INPUTS, UNITS, PROJECTED = 3, 4, 5, 2


def diagonal_peephole_lstm(peephole: Tensor) -> Cell:
    """The cell of an LSTM with given peepholes, [3, H]."""
    step = partial(cells.diagonal_peephole_lstm_step, peephole=peephole)
    return replace(cells.LSTM, name="diagonal_peephole_lstm", step=step)


CELLS = {
    cell.name: cell
    for cell in (
        cells.RNN_TANH,
        cells.RNN_RELU,
        cells.GRU,
        cells.GRU_RESET_BEFORE,
        cells.LSTM,
        cells.PEEPHOLE_LSTM,
        diagonal_peephole_lstm(torch.linspace(-1, 1, 3 * UNITS, dtype=torch.float64).view(3, UNITS)),
    )
}


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def projecting(parameters: dict[str, Tensor], suffix: str = ""):
    """``project`` on parameters that are named as those of torch.nn."""

    def project(**inputs: Tensor) -> Tensor:
        return sum(
            value @ parameters[f"weight_{role}{suffix}"].T + parameters.get(f"bias_{role}{suffix}", 0)
            for role, value in inputs.items()
        )

    return project


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("cell", "module"),
    [
        (cells.RNN_TANH, lambda **kw: nn.RNNCell(INPUTS, UNITS, **kw)),
        (cells.RNN_RELU, lambda **kw: nn.RNNCell(INPUTS, UNITS, nonlinearity="relu", **kw)),
        (cells.GRU, lambda **kw: nn.GRUCell(INPUTS, UNITS, **kw)),
        (cells.LSTM, lambda **kw: nn.LSTMCell(INPUTS, UNITS, **kw)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_step_is_that_of_pytorchs_cell(cell, module, bias):
    torch.manual_seed(0)
    theirs, x = module(bias=bias).double(), randn(BATCH, INPUTS)
    state = tuple(randn(BATCH, UNITS) for _ in cell.states)
    expected = theirs(x, state if len(state) > 1 else state[0])
    actual = cell.step(projecting(dict(theirs.named_parameters())), x, state)
    torch.testing.assert_close(actual, expected if isinstance(expected, tuple) else (expected,))


def test_a_step_of_the_projected_lstm_is_that_of_pytorchs_layer():
    torch.manual_seed(0)
    theirs, x = nn.LSTM(INPUTS, UNITS, proj_size=PROJECTED).double(), randn(BATCH, INPUTS)
    h, c = randn(BATCH, PROJECTED), randn(BATCH, UNITS)
    _, (h_n, c_n) = theirs(x[None], (h[None], c[None]))
    actual = cells.PROJECTED_LSTM.step(projecting(dict(theirs.named_parameters()), "_l0"), x, (h, c))
    torch.testing.assert_close(actual, (h_n[0], c_n[0]))


@pytest.mark.parametrize("peepholes", ["full", "diagonal"])
def test_a_step_with_peepholes_is_that_of_the_module(peepholes):
    torch.manual_seed(0)
    module, x = PeepholeLSTM(INPUTS, UNITS, peepholes=peepholes, dtype=torch.float64), randn(BATCH, INPUTS)
    h, c = randn(BATCH, UNITS), randn(BATCH, UNITS)
    _, (h_n, c_n) = module(x[None], (h[None], c[None]))
    cell = cells.PEEPHOLE_LSTM if peepholes == "full" else diagonal_peephole_lstm(module.peephole_l0.detach())
    actual = cell.step(projecting(dict(module.named_parameters()), "_l0"), x, (h, c))
    torch.testing.assert_close(actual, (h_n[0], c_n[0]))


def test_a_step_with_the_reset_gate_in_front_is_that_of_the_module():
    torch.manual_seed(0)
    module, x = ResetBeforeGRU(INPUTS, UNITS, dtype=torch.float64), randn(BATCH, INPUTS)
    h, cell, whole = randn(BATCH, UNITS), cells.GRU_RESET_BEFORE, dict(module.named_parameters())
    named = {f"weight_{role}": cell.part_of(role, whole[f"weight_{cell.whole_of(role)}_l0"]) for role in cell.reads}
    biases = cell.biases_of({role: whole[f"bias_{role}_l0"] for role in ("ih", "hh")})
    project = projecting(named | {f"bias_{role}": bias for role, bias in biases.items()})
    torch.testing.assert_close(cell.step(project, x, (h,)), (module(x[None], h[None])[1][0],))


def made_of(parts: dict[str, float], order: str) -> Tensor:
    return torch.tensor([[parts[gate] for gate in order]], dtype=torch.float64)


sizes = st.floats(-3, 3)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from("ifgo"), sizes, min_size=4), sizes, st.lists(sizes, min_size=3, max_size=3))
def test_a_unit_of_gers_and_schmidhubers_lstm_by_hand(gates, c, peephole):
    """Input and forget gate see the old cell, the output gate the new one."""
    column = torch.tensor(peephole, dtype=torch.float64).view(3, 1)
    old = torch.full((1, 1), c, dtype=torch.float64)
    step = diagonal_peephole_lstm(column).step
    h_next, c_next = step(lambda **inputs: made_of(gates, "ifgo"), old, (old, old))
    p_i, p_f, p_o = column.flatten()
    i, f, g, o = made_of(gates, "ifgo")[0]
    new = torch.sigmoid(f + p_f * c) * c + torch.sigmoid(i + p_i * c) * torch.tanh(g)
    assert c_next.item() == pytest.approx(new.item(), abs=1e-12)
    assert h_next.item() == pytest.approx((torch.sigmoid(o + p_o * new) * torch.tanh(new)).item(), abs=1e-12)


def rows_of(cell: Cell, role: str) -> int:
    """The number of rows of a kernel, or of a part of one."""
    return len(cell.part_of(role, torch.zeros(len(cell.gates) * UNITS, 1)))


def pre_activations(cell: Cell, x: Tensor, state: tuple[Tensor, ...]) -> list[int]:
    """The widths of what the kernels make in a step."""
    widths: list[int] = []

    def project(**inputs: Tensor) -> Tensor:
        widths.append(rows_of(cell, next(iter(inputs))))
        return randn(len(x), widths[-1])

    cell.step(project, x, state)
    return widths


@pytest.mark.parametrize("name", CELLS)
def test_each_kernel_is_used_once_and_reads_what_the_cell_says(name):
    """And every pre-activation has a row for each gate and unit."""
    cell: Cell = CELLS[name]
    x, state = randn(BATCH, INPUTS), tuple(randn(BATCH, UNITS) for _ in cell.states)
    sources = {"x": x, **dict(zip(cell.states, state, strict=True))}
    seen = []

    def project(**inputs: Tensor) -> Tensor:
        for role, value in inputs.items():
            source = cell.reads[role]
            if source == RESET_STATE:
                assert ((value / state[0] > 0) & (value / state[0] < 1)).all()  # a gate
            else:
                assert value is sources[source]
        seen.extend(inputs)
        return randn(BATCH, rows_of(cell, next(iter(inputs))))

    new = cell.step(project, x, state)
    assert sorted(seen) == sorted(cell.reads)
    assert cell.of_input == ["ih"]
    assert [part.shape for part in new] == [(BATCH, UNITS)] * len(cell.states)


@pytest.mark.parametrize("name", CELLS)
def test_all_but_the_kernels_acts_on_each_sample_and_unit_alone(name):
    """The derivatives by a gate's block, or by a state with the pre-activations held, are diagonal matrices."""
    cell: Cell = CELLS[name]
    assert cell.elementwise
    torch.manual_seed(0)
    x, state = randn(2, INPUTS), tuple(randn(2, UNITS) for _ in cell.states)
    made = [randn(2, rows) for rows in pre_activations(cell, x, state)]

    def step(*given: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(given[: len(made)])
        return cell.step(lambda **inputs: next(remaining), x, given[len(made) :])

    diagonal = torch.eye(2 * UNITS, dtype=torch.bool).view(2, UNITS, 2, UNITS)
    for by_input in jacobian(step, (*made, *state)):
        for block in (part for derivative in by_input for part in derivative.split(UNITS, dim=-1)):
            assert not block[~diagonal].any()


def test_an_update_gate_that_is_open_keeps_the_state_of_a_gru():
    h = randn(BATCH, UNITS)
    pre = torch.cat([randn(BATCH, UNITS), torch.full((BATCH, UNITS), 100.0).double(), randn(BATCH, UNITS)], dim=1)
    (new,) = cells.GRU.step(lambda **inputs: pre, h, (h,))
    torch.testing.assert_close(new, h)


def test_parts_of_kernels_have_their_gates_and_columns_and_each_row_one_bias():
    rows = torch.arange(6.0)
    kernel = rows[:, None] * 10 + torch.arange(4)
    cell = replace(
        cells.GRU,
        reads={"xh[0]": "x", "xh[1]": "h", "hh_rz": "h", "hh_n": RESET_STATE},
        parts={
            "xh[0]": Part("xh", columns=slice(0, 3)),
            "xh[1]": Part("xh", columns=slice(3, 4)),
            **cells.GRU_RESET_BEFORE.parts,
        },
    )
    assert torch.equal(cell.part_of("xh[1]", kernel), kernel[:, 3:])
    assert torch.equal(cell.part_of("hh_rz", kernel), kernel[:4])
    assert torch.equal(cell.part_of("hh_n", kernel), kernel[4:])
    assert (cell.roles_of("xh"), cell.roles_of("hh")) == (["xh[0]", "xh[1]"], ["hh_rz", "hh_n"])
    assert (cell.first_part_of("hh_n"), cell.first_part_of("xh[1]")) == ("hh_rz", "xh[1]")
    biases = cell.biases_of({"xh": rows, "hh": -rows})
    assert {role: bias.tolist() for role, bias in biases.items()} == {
        "xh[0]": [0, 1, 2, 3, 4, 5],
        "hh_rz": [0, -1, -2, -3],
        "hh_n": [-4, -5],
    }


def test_peepholes_of_zero_make_an_lstm():
    x, state = randn(BATCH, INPUTS), (randn(BATCH, UNITS), randn(BATCH, UNITS))
    pre = randn(BATCH, 4 * UNITS)
    without = diagonal_peephole_lstm(torch.zeros(3, UNITS, dtype=torch.float64))
    actual, expected = (cell.step(lambda **inputs: pre, x, state) for cell in (without, cells.LSTM))
    torch.testing.assert_close(actual, expected)
    assert without.reads == cells.LSTM.reads
