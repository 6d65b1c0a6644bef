"""Temporal Jacobians in closed form, against autograd in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.nn.utils.rnn import pack_sequence

from sparse_rnn import PeepholeLSTM, ResetBeforeGRU, register_cell
from sparse_rnn.recurrent import spectrum as module_under_test
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.recurrent.spectrum import NEAR_ZERO, Spectrum, product_singular_values, spectrum
from sparse_rnn.recurrent.spectrum import unrolled_layers as layers_of
from sparse_rnn.recurrent.unroll import Unrolled

INPUTS, UNITS, BATCH, STEPS = 3, 5, 4, 6


class ResetBefore(nn.Module):
    """A GRU whose reset gate acts before the product, so that a kernel reads an intermediate."""

    def __init__(self) -> None:
        super().__init__()
        self.w_x = nn.Parameter(torch.randn(3 * UNITS, INPUTS))
        self.w_h = nn.Parameter(torch.randn(3 * UNITS, UNITS) / 2)
        self.w_n = nn.Parameter(torch.randn(3 * UNITS, UNITS) / 2)

    def forward(self, x, state=None):
        h = x.new_zeros(len(x), UNITS) if state is None else state
        weights = {"ih": self.w_x, "hh": self.w_h, "nh": self.w_n}
        return reset_before_step(self, lambda **inputs: sum(v @ weights[r].T for r, v in inputs.items()), x, (h,))[0]


def reset_before_step(cell, project, x, state):
    (h,) = state
    r, z, n = project(ih=x, hh=h).chunk(3, -1)
    through_reset = project(nh=torch.sigmoid(r) * h).chunk(3, -1)[2]
    z = torch.sigmoid(z)
    return (z * h + (1 - z) * torch.tanh(n + through_reset),)


register_cell(
    ResetBefore, step=reset_before_step, kernels={"ih": "w_x", "hh": "w_h", "nh": "w_n"}, gates=("r", "z", "n")
)


class InALoop(nn.Module):
    def __init__(self, cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x_TBI):
        state = None
        for x_BI in x_TBI:
            state = self.cell(x_BI, state)
        return state


MODELS = {
    "rnn_tanh": lambda: nn.RNN(INPUTS, UNITS),
    "rnn_relu": lambda: nn.RNN(INPUTS, UNITS, nonlinearity="relu"),
    "gru": lambda: nn.GRU(INPUTS, UNITS),
    "gru_reset_before": lambda: ResetBeforeGRU(INPUTS, UNITS),
    "lstm": lambda: nn.LSTM(INPUTS, UNITS),
    "projected_lstm": lambda: nn.LSTM(INPUTS, UNITS, proj_size=2),
    "peephole_lstm": lambda: PeepholeLSTM(INPUTS, UNITS),
    "diagonal_peephole_lstm": lambda: PeepholeLSTM(INPUTS, UNITS, peepholes="diagonal"),
    "gru_cell": lambda: InALoop(nn.GRUCell(INPUTS, UNITS)),
    "registered": lambda: InALoop(ResetBefore()),
}
ONE_STATE = ["rnn_tanh", "rnn_relu", "gru", "gru_reset_before", "gru_cell", "registered"]


def unrolled_layer(name: str) -> Unrolled:
    torch.manual_seed(0)
    model = MODELS[name]().double()
    [[unrolled]] = layers_of(model, torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)).values()
    return unrolled


def jacobians(unrolled: Unrolled, last: int = 1, states: str = "output") -> Tensor:
    """The temporal Jacobians of the last steps, [steps, B, N, N], the earliest first."""
    flat = torch.cat(list(module_under_test._jacobians(unrolled, None, last, states)))
    return flat.unflatten(0, (-1, unrolled.x_TBI.shape[1]))


def by_autograd(unrolled: Unrolled, t: int, b: int, observed: int, steps: int = 1) -> Tensor:
    """∂(state after step t)/∂(state before step t - steps + 1) of one sample."""
    layer = unrolled.layer
    old = [state[t - steps + 1, b : b + 1] for state in unrolled.states]

    def project(**inputs: Tensor) -> Tensor:
        return sum(value @ layer.weights[r].T + layer.biases.get(r, 0) for r, value in inputs.items())

    def run(free: Tensor) -> Tensor:
        states = (*(part[None] for part in free.split(layer.state_sizes[:observed])), *old[observed:])
        for x_I in unrolled.x_TBI[t - steps + 1 : t + 1, b]:
            states = layer.cell.step(project, x_I[None], states)
        return torch.cat(states[:observed], dim=-1)[0]

    return jacobian(run, torch.cat([part[0] for part in old[:observed]])).detach()


@pytest.mark.parametrize("states", ["output", "all"])
@pytest.mark.parametrize("name", MODELS)
def test_closed_forms_equal_autograd(name, states):
    unrolled = unrolled_layer(name)
    observed = len(unrolled.states) if states == "all" else 1
    found = jacobians(unrolled, last=2, states=states)
    expected = torch.stack(
        [torch.stack([by_autograd(unrolled, t, b, observed) for b in range(BATCH)]) for t in (STEPS - 2, STEPS - 1)]
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_products_are_the_derivative_over_several_steps(name):
    unrolled = unrolled_layer(name)
    found = product_singular_values(unrolled, [4, 1, STEPS + 1], samples=2)
    assert sorted(found) == [1, 4]
    for k, values in found.items():
        whole = [by_autograd(unrolled, STEPS - 1, b, len(unrolled.states), steps=k) for b in range(2)]
        torch.testing.assert_close(values, torch.linalg.svdvals(torch.stack(whole)), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_the_spectrum_is_that_of_the_jacobians(name, monkeypatch):
    unrolled = unrolled_layer(name)
    matrices = jacobians(unrolled, last=2)
    expected = torch.linalg.svdvals(matrices).flatten(0, 1)
    monkeypatch.setattr(module_under_test, "_ENTRIES", 3 * UNITS**2)  # three matrices at a time, and a rest of one
    found = spectrum(unrolled, last=2)
    torch.testing.assert_close(found.singular_values, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(spectrum(unrolled, samples=3).singular_values, expected[BATCH : BATCH + 3])
    assert found.mean == pytest.approx(expected.mean().item())
    assert found.largest == pytest.approx(torch.linalg.matrix_norm(matrices, 2).max().item())
    ones = jacobians(unrolled, last=4).sum(-1)
    assert found.chi == pytest.approx(ones.square().mean().item())


def test_chi_is_of_the_steps_that_sequences_take():
    layer, lengths = nn.GRU(INPUTS, UNITS), [10, 1, 3]
    sequences = [torch.randn(length, INPUTS) for length in lengths]
    together = spectrum(layers_of(layer, pack_sequence(sequences, enforce_sorted=False))["l0"][0]).chi
    alone = [spectrum(layers_of(layer, x.unsqueeze(1))["l0"][0]).chi for x in sequences]
    counts = [min(length, 4) for length in lengths]
    expected = sum(chi * count for chi, count in zip(alone, counts, strict=True)) / sum(counts)
    assert together == pytest.approx(expected, rel=1e-4)


def test_near_zero_is_a_share_of_all_singular_values():
    values = torch.tensor([[1.0, NEAR_ZERO / 2, 0.0], [2.0, 0.5, 2 * NEAR_ZERO]])
    assert Spectrum(1.0, values).near_zero == pytest.approx(2 / 6)


def test_units_that_read_no_state_have_singular_values_of_exactly_zero():
    model = nn.RNN(INPUTS, UNITS)
    with torch.no_grad():
        model.weight_hh_l0[1:3] = 0
    [[unrolled]] = layers_of(model, torch.randn(STEPS, BATCH, INPUTS)).values()
    assert spectrum(unrolled).near_zero == pytest.approx(2 / UNITS, abs=0.05)


def test_layers_and_directions_are_named_and_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.GRU(INPUTS, UNITS, num_layers=2, bidirectional=True))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calls = layers_of(model, torch.randn(STEPS, BATCH, INPUTS))
    assert list(calls) == ["0.l0", "0.l0_reverse", "0.l1", "0.l1_reverse"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(unrolled.weights["hh"] is not None for [unrolled] in calls.values())
    weights = [unrolled.weights["hh"] for [unrolled] in calls.values()]
    assert torch.equal(weights[3], model[0].weight_hh_l1_reverse)


def test_steps_before_a_sequence_begins_are_no_steps():
    torch.manual_seed(0)
    model = nn.GRU(INPUTS, UNITS)
    packed = pack_sequence([torch.randn(length, INPUTS) for length in (5, 2, 3)], enforce_sorted=False)
    [[unrolled]] = layers_of(model, packed).values()
    assert spectrum(unrolled, last=4).singular_values.shape == (2 * 3, UNITS)
    assert sorted(product_singular_values(unrolled, [1, 2, 3])) == [1, 2]
    alone = layers_of(model, torch.nn.utils.rnn.pad_packed_sequence(packed)[0][:2, 1:2])
    [[short]] = alone.values()
    torch.testing.assert_close(jacobians(unrolled)[0, 1], jacobians(short)[0, 0])


def test_single_precision_is_close_and_half_precision_is_computed_in_single():
    torch.manual_seed(0)
    model, x = nn.GRU(INPUTS, 32), torch.randn(STEPS, BATCH, INPUTS)
    [[single]] = layers_of(model, x).values()
    values = spectrum(single).singular_values
    [[double]] = layers_of(model.double(), x.double()).values()
    torch.testing.assert_close(values, spectrum(double).singular_values.float(), rtol=1e-4, atol=1e-5)
    [[half]] = layers_of(model.bfloat16(), x.bfloat16()).values()
    assert spectrum(half).singular_values.dtype == torch.float32


@pytest.mark.parametrize("inside", [True, False])
def test_it_is_the_same_in_inference_mode(inside):
    gru, x = nn.GRU(INPUTS, UNITS), torch.randn(STEPS, BATCH, INPUTS)
    expected = spectrum(layers_of(gru, x)["l0"][0])
    with torch.inference_mode():
        found = spectrum(layers_of(gru, x.clone() if inside else x)["l0"][0])
    assert found.chi == expected.chi > 0
    assert torch.equal(found.singular_values, expected.singular_values)


def test_peepholes_are_those_that_the_module_has_by_now():
    lstm, x = PeepholeLSTM(INPUTS, UNITS, peepholes="diagonal"), torch.randn(STEPS, BATCH, INPUTS)
    recurrent = find_targets(lstm).recurrent
    for parameter in lstm.parameters():
        parameter.data = torch.randn_like(parameter)  # as moving a model to another device does
    [unrolled] = layers_of(lstm, x, recurrent=recurrent)["l0"]
    torch.testing.assert_close(unrolled.output_TBH, lstm(x)[0])


@pytest.mark.parametrize("make", [nn.GRU, PeepholeLSTM, lambda *sizes: nn.LSTM(*sizes, proj_size=2)])
def test_spectra_inside_autocast_are_those_outside(make):
    torch.manual_seed(0)
    ((unrolled,),) = layers_of(make(INPUTS, UNITS), torch.randn(STEPS, BATCH, INPUTS)).values()
    outside, outside_of_several = spectrum(unrolled), product_singular_values(unrolled, [2])[2]
    with torch.autocast("cpu", torch.bfloat16):
        inside, inside_of_several = spectrum(unrolled), product_singular_values(unrolled, [2])[2]
    assert inside.chi == outside.chi
    assert torch.equal(inside.singular_values, outside.singular_values)
    assert torch.equal(inside_of_several, outside_of_several)
