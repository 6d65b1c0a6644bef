"""Calls of whole layers that hand their state on: the scores are those of one call for all the steps."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from sparse_rnn import JacobianSpectrum, SynFlow, prune
from sparse_rnn.recurrent.capture import run_unrolled
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

INPUTS, UNITS, STEPS, BATCH = 3, 5, 6, 4
KINDS = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "gru_reset_before": ResetBeforeGRU,
    "lstm": nn.LSTM,
    "peephole_lstm": PeepholeLSTM,
}
CELLS = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


def data(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Pieces(nn.Module):
    """Calls a recurrent module on pieces of its input, each with the state of the last one."""

    def __init__(self, rnn: nn.Module, pieces: list[int], between=lambda state: state) -> None:
        super().__init__()
        self.rnn, self.pieces, self.between = rnn.double(), pieces, between

    def forward(self, x: Tensor) -> Tensor:
        outputs, state = [], None
        time = 1 if self.rnn.batch_first else 0
        for piece in x.split(self.pieces, time):
            output, state = self.rnn(piece, None if state is None else self.between(state))
            outputs.append(output)
        return torch.cat(outputs, time)


def detached(state):
    return tuple(part.detach().clone() for part in state) if isinstance(state, tuple) else state.detach().clone()


def scores_of(criterion, model, x):
    targets = find_targets(model)
    torch.manual_seed(3)
    return {name.removeprefix("rnn."): score for name, score in criterion.score(model, x, None, targets).items()}


@pytest.mark.each_value
@pytest.mark.parametrize(
    "criterion",
    [JacobianSpectrum.paper(), JacobianSpectrum.author(), SynFlow()],
    ids=["jacobian", "author", "synflow"],
)
@pytest.mark.parametrize("pieces", [[1] * STEPS, [2, 4]], ids=["one step a call", "chunks"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"batch_first": True}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_scores_are_those_of_one_call(kind, options, pieces, criterion):
    torch.manual_seed(0)
    rnn = KINDS[kind](INPUTS, UNITS, **options).double()
    x = data(STEPS, BATCH, INPUTS)
    if "batch_first" in options:
        x = x.transpose(0, 1)
    whole = scores_of(criterion, rnn, x)
    for between in (lambda state: state, detached):
        in_pieces = scores_of(criterion, Pieces(rnn, pieces, between), x)
        for name, score in whole.items():
            torch.testing.assert_close(in_pieces[name], score, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("kind", CELLS)
def test_they_are_those_of_a_cell_in_a_loop(kind):
    torch.manual_seed(0)
    layer, cell = KINDS[kind](INPUTS, UNITS), CELLS[kind](INPUTS, UNITS).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.double().state_dict().items()})

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = cell

        def forward(self, x):
            state = None
            for x_t in x:
                state = self.rnn(x_t, state)

    of_cell = scores_of(JacobianSpectrum(), Loop(), data(STEPS, BATCH, INPUTS))
    of_layer = scores_of(JacobianSpectrum(), Pieces(layer, [1] * STEPS), data(STEPS, BATCH, INPUTS))
    for name, score in of_cell.items():
        torch.testing.assert_close(of_layer[f"{name}_l0"], score, rtol=1e-7, atol=1e-12)


def test_both_directions_go_on_in_the_order_in_which_they_read():
    torch.manual_seed(0)
    rnn, x = nn.GRU(INPUTS, UNITS, bidirectional=True).double(), data(STEPS, BATCH, INPUTS)
    model = Pieces(rnn, [2, 4])
    output = model(x)
    forward, reverse = run_unrolled(model, find_recurrent(model), x)
    torch.testing.assert_close(forward.output_TBH, output[..., :UNITS])
    torch.testing.assert_close(reverse.x_TBI, torch.cat([x[:2].flip(0), x[2:].flip(0)]))
    torch.testing.assert_close(reverse.states[0][1:], torch.cat([output[:2].flip(0), output[2:].flip(0)])[..., UNITS:])


@pytest.mark.parametrize("reverse", [False, True])
def test_packed_pieces_lie_one_behind_the_other_for_every_sample(reverse):
    torch.manual_seed(0)
    rnn, x = nn.GRU(INPUTS, UNITS, bidirectional=reverse).double(), data(STEPS, BATCH, INPUTS)
    lengths = torch.tensor([[3, 1, 2, 3], [1, 3, 2, 2]])

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = rnn

        def forward(self, x):
            state = None
            for piece, length in zip(x.split(3), lengths, strict=True):
                packed = pack_padded_sequence(piece, length, enforce_sorted=False)
                state = self.rnn(packed, None if state is None else state * 0.5)[1]
            return state

    model = Packed()
    final = model(x)[-1]
    unrolled = run_unrolled(model, find_recurrent(model), x)[-1]
    torch.testing.assert_close(unrolled.states[0][-1], final)
    assert unrolled.shortest == 4
    assert len(unrolled.x_TBI) == 5


def test_two_sequences_at_once_are_told_apart_and_so_are_layers_of_one_class():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.GRU(INPUTS, UNITS).double(), nn.GRU(INPUTS, UNITS).double()

        def forward(self, x):
            states = [None, None, None]
            for x_t in x.split(1):
                states[0] = self.a(x_t, states[0])[1]
                states[1] = self.a(-x_t, states[1])[1]
                states[2] = self.b(x_t, states[2])[1]

    model = Both()
    found = run_unrolled(model, find_recurrent(model), data(STEPS, BATCH, INPUTS))
    assert [unrolled.layer.kernels["hh"] for unrolled in found] == ["a.weight_hh_l0"] * 2 + ["b.weight_hh_l0"]
    assert [len(unrolled.x_TBI) for unrolled in found] == [STEPS] * 3


def test_a_step_that_is_written_where_the_last_one_was_counts_as_it_was():
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(INPUTS, UNITS).double()

        def forward(self, x):
            step, state = torch.empty_like(x[:1]), None
            for x_t in x:
                state = self.rnn(step.copy_(x_t), state)[1]

    x = data(STEPS, BATCH, INPUTS)
    model = InPlace()
    [unrolled] = run_unrolled(model, find_recurrent(model), x)
    torch.testing.assert_close(unrolled.x_TBI, x)


# What becomes of the state between the calls: the calls are joined, or each is a sequence of its own.
BETWEEN = {
    "decayed": lambda h, x: h * torch.exp(-x.mean(-1, keepdim=True).abs()),
    "dropped out": lambda h, x: nn.functional.dropout(h, 0.3),
    "fed into": lambda h, x: torch.tanh(h + 1),
    "learned": lambda h, x: torch.full_like(h, 0.3),
    "zeros": lambda h, x: torch.zeros_like(h),
    "none": lambda h, x: None,
}


class Changed(nn.Module):
    """Calls a recurrent module one step at a time, with a state that something was done to."""

    def __init__(self, rnn: nn.Module, between) -> None:
        super().__init__()
        self.rnn, self.between = rnn, between

    def forward(self, x):
        h = x.new_zeros(x.shape[1], self.rnn.hidden_size)
        is_cell = isinstance(self.rnn, nn.GRUCell)
        for x_t in x:
            h = self.between(h, x_t)
            h = self.rnn(x_t, h) if is_cell else self.rnn(x_t[None], None if h is None else h[None])[1][0]
        return h


@pytest.mark.each_value
@pytest.mark.parametrize("criterion", ["jacobian", "synflow"])
@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("kind", [nn.GRU, nn.GRUCell])
def test_no_kernel_is_emptied_because_a_step_is_a_sequence_of_its_own(kind, between, criterion):
    torch.manual_seed(0)
    model = Changed(kind(8, 32), BETWEEN[between])
    masks = prune(model, torch.rand(20, 16, 8), sparsity=0.5, criterion=criterion, rounds=1)
    kept = {kernel.role: masks[name].float().mean() for name, kernel in masks.kernels.items()}
    assert kept["hh"] > 0.1
    assert kept["ih"] > 0.1 or criterion == "synflow"  # of 20 steps hardly a path begins at the input


def test_a_batch_of_single_steps_has_scores_for_the_recurrent_kernel():
    torch.manual_seed(0)
    rnn = nn.GRU(8, 32)
    scores = JacobianSpectrum.paper().score(rnn, torch.rand(1, 16, 8), None, find_targets(rnn))
    assert scores["weight_hh_l0"].count_nonzero() == scores["weight_hh_l0"].numel()
    # With the reset gate in front, r tells nothing of a step from the zero state: it scales that state.
    by_gate = JacobianSpectrum.author().score(rnn, torch.rand(1, 16, 8), None, find_targets(rnn))["weight_hh_l0"]
    assert [int(gate.count_nonzero()) for gate in by_gate.chunk(3)] == [0, 32 * 32, 32 * 32]


def test_a_state_that_hardly_decays_gets_hardly_other_masks():
    def masks(factor):
        torch.manual_seed(0)
        return prune(Changed(nn.GRUCell(8, 32), lambda h, x: h * factor), x, sparsity=0.9)

    x = torch.rand(20, 16, 8)
    plain, decayed = masks(1.0), masks(0.999)
    assert sum(int((plain[name] & decayed[name]).sum()) for name in plain) > 0.97 * plain.kept
