"""Layers scored with other biases, and with the reset gate in front, against modules that have them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from sparse_rnn import JacobianSpectrum, PeepholeLSTM, ResetBeforeGRU
from sparse_rnn.recurrent.capture import run_unrolled
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.scores.scored_layers import constant_biases, run_as_scored

BATCH, STEPS, INPUTS, UNITS, BIAS = 3, 6, 2, 4, 0.1
BY_GATE = {
    nn.RNN: [BIAS],
    nn.GRU: [BIAS, -BIAS, BIAS],
    ResetBeforeGRU: [BIAS, -BIAS, BIAS],
    nn.LSTM: [BIAS, 1 + BIAS, BIAS, BIAS],
    PeepholeLSTM: [BIAS, 1 + BIAS, BIAS, BIAS],
}


def build(kind: type[nn.Module], inputs: int = INPUTS, **options) -> nn.Module:
    torch.manual_seed(0)
    rnn = kind(inputs, UNITS, **options).double()
    for parameter in rnn.parameters():
        nn.init.normal_(parameter, 0.1, 0.6)
    return rnn


def data(steps: int = STEPS) -> Tensor:
    return torch.randn(steps, BATCH, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def twin(rnn: nn.Module, kind: type[nn.Module] | None = None) -> nn.Module:
    """A module of the same kernels and the author's biases."""
    other = build(kind or type(rnn), rnn.input_size, num_layers=rnn.num_layers)
    state = rnn.state_dict()
    for name in state:
        if name.startswith("bias"):
            by_gate = BY_GATE[type(rnn)] if "bias_ih" in name else [0.0] * len(BY_GATE[type(rnn)])
            state[name] = torch.tensor(by_gate, dtype=torch.float64).repeat_interleave(UNITS)
    other.load_state_dict(state)
    return other


def scores(criterion: JacobianSpectrum, model: nn.Module, batch) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return criterion.score(model, batch, None, find_targets(model))


@pytest.mark.parametrize("gamma", ["sequence", "author"])
@pytest.mark.parametrize("kind", BY_GATE)
def test_constant_biases_are_those_of_a_module_that_has_them(kind, gamma):
    rnn = build(kind)
    before = {name: value.clone() for name, value in rnn.state_dict().items()}
    actual = scores(JacobianSpectrum.paper(biases=BIAS, gamma=gamma), rnn, data())
    torch.testing.assert_close(actual, scores(JacobianSpectrum.paper(gamma=gamma), twin(rnn), data()))
    assert all(torch.equal(before[name], value) for name, value in rnn.state_dict().items())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("biases", ["own", BIAS])
def test_a_reset_gate_in_front_is_that_of_the_module_that_has_it(biases, packed):
    gru = build(nn.GRU)
    x = pack_padded_sequence(data(), torch.tensor([6, 2, 4]), enforce_sorted=False) if packed else data()
    actual = scores(JacobianSpectrum.paper(biases=biases, reset_before=True), gru, x)
    other = build(ResetBeforeGRU)
    other.load_state_dict((gru if biases == "own" else twin(gru)).state_dict())
    torch.testing.assert_close(actual, scores(JacobianSpectrum.paper(), other, x))


def test_other_cells_have_no_reset_gate_to_move():
    lstm = build(nn.LSTM)
    plain, moved = (scores(JacobianSpectrum.paper(reset_before=moved), lstm, data()) for moved in (False, True))
    torch.testing.assert_close(moved, plain, rtol=0, atol=0)


def test_a_layer_above_is_scored_on_what_it_really_receives():
    gru = build(nn.GRU, num_layers=2)
    actual = scores(JacobianSpectrum.paper(biases=BIAS, gamma="none"), gru, data())
    below = build(nn.GRU)
    below.load_state_dict({name: value for name, value in gru.state_dict().items() if "_l0" in name})
    above = build(nn.GRU, UNITS)
    own = {name: value for name, value in gru.state_dict().items() if "_l1" in name}
    above.load_state_dict({name.replace("_l1", "_l0"): value for name, value in own.items()})
    expected = scores(JacobianSpectrum.paper(gamma="none"), twin(above), below(data())[0].detach())
    torch.testing.assert_close(actual["weight_hh_l1"], expected["weight_hh_l0"])


def test_a_cell_in_a_loop_is_run_again_from_the_state_that_it_began_with():
    class Loop(nn.Module):
        def __init__(self, cell: nn.GRUCell) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor, h: Tensor) -> None:
            for x_t in x:
                h = self.cell(x_t, h)

    gru, h = build(nn.GRU), torch.rand(BATCH, UNITS, dtype=torch.float64)
    cell = nn.GRUCell(INPUTS, UNITS).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in gru.state_dict().items()})
    criterion = JacobianSpectrum.paper(biases=BIAS, reset_before=True)
    actual, expected = scores(criterion, Loop(cell), (data(), h)), scores(criterion, gru, (data(), h[None]))
    torch.testing.assert_close(actual["cell.weight_hh"], expected["weight_hh_l0"])


def test_steps_of_a_longer_sequence_stay_what_they_are():
    """Several calls of one step each are compared with longer sequences of noise."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = build(nn.GRU)

        def forward(self, x: Tensor) -> None:
            for x_t in x:
                self.rnn(x_t[None])

    model = Steps()
    calls = run_unrolled(model, find_recurrent(model), data())
    again = list(run_as_scored(calls, BIAS, reset_before=True))
    assert [unrolled.reference_steps for unrolled in again] == [STEPS] * STEPS
    assert len({id(unrolled.layer) for unrolled in again}) == 1


def test_biases_are_in_the_precision_of_the_scores():
    (layer,) = find_recurrent(build(nn.LSTM).bfloat16())[0].layers[0]
    biases = constant_biases(layer, 0.5)
    assert biases["ih"].tolist() == [0.5] * 4 + [1.5] * 4 + [0.5] * 8
    assert biases["ih"].dtype == torch.float32


def test_nothing_is_run_again_where_nothing_is_other():
    rnn = build(nn.LSTM)
    calls = run_unrolled(rnn, find_recurrent(rnn), data())
    assert list(run_as_scored(calls, None, reset_before=True)) == calls
