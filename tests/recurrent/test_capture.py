"""The unrolled modules that stand in while a model runs return what the fused ones do."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from sparse_rnn import prune, register_cell
from sparse_rnn.recurrent import registry
from sparse_rnn.recurrent.capture import run_unrolled
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

INPUTS, UNITS, STEPS, BATCH = 3, 5, 7, 4
KINDS = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "gru_reset_before": ResetBeforeGRU,
    "lstm": nn.LSTM,
    "peephole_lstm": PeepholeLSTM,
}


class Recording(nn.Module):
    """Keeps what its recurrent module returned."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x, hx=None):
        self.returned = self.rnn(x, hx)
        return self.returned


def assert_same(actual, expected) -> None:
    if isinstance(expected, PackedSequence):
        for part, wanted in zip(actual, expected, strict=True):
            assert (part is None) == (wanted is None)
            if wanted is not None:
                torch.testing.assert_close(part, wanted)
    elif isinstance(expected, tuple):
        assert len(actual) == len(expected)
        for part, wanted in zip(actual, expected, strict=True):
            assert_same(part, wanted)
    else:
        torch.testing.assert_close(actual, expected)


def inputs(layout: str):
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    if layout.startswith("packed"):
        lengths = torch.tensor([7, 5, 5, 1] if layout == "packed sorted" else [5, 1, 7, 5])
        return pack_padded_sequence(x, lengths, enforce_sorted=layout == "packed sorted")
    return {"time first": x, "batch first": x.transpose(0, 1), "unbatched": x[:, 0]}[layout]


@pytest.mark.each_value
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("layout", ["time first", "batch first", "unbatched", "packed sorted", "packed unsorted"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_states_are_those_of_the_fused_module(kind, layout, with_state):
    torch.manual_seed(0)
    rnn = KINDS[kind](INPUTS, UNITS, num_layers=2, bidirectional=True, batch_first=layout == "batch first").double()
    model = Recording(rnn)
    hx = None
    if with_state:
        shape = (4, UNITS) if layout == "unbatched" else (4, BATCH, UNITS)
        h, c = torch.randn(2, *shape, dtype=torch.float64)
        hx = (h, c) if "lstm" in kind else h
    x = inputs(layout)
    expected = model(x, hx)
    run_unrolled(model, find_recurrent(model), (x, hx))
    assert_same(model.returned, expected)
    assert "forward" not in vars(rnn)


def test_a_layer_without_biases():
    torch.manual_seed(0)
    model = Recording(nn.GRU(INPUTS, UNITS, bias=False).double())
    x = inputs("time first")
    expected = model(x)
    run_unrolled(model, find_recurrent(model), (x,))
    assert_same(model.returned, expected)


def wrapping(kind: type[nn.Module]) -> type[nn.Module]:
    """A subclass that packs what it is given around ``super().forward``, as pytorch-forecasting has."""

    class Wrapping(kind):
        def forward(self, x, hx=None, lengths=None):
            if lengths is not None:
                x = pack_padded_sequence(x, lengths, enforce_sorted=False)
            output, state = super().forward(x, hx)
            return (pad_packed_sequence(output)[0] if lengths is not None else output), state

    return Wrapping


class Padded(nn.Module):
    """Gives a recurrent module sequences of different lengths: it packs them itself, or is given them packed."""

    def __init__(self, kind: type[nn.Module], packs: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.packs = kind(INPUTS, UNITS, num_layers=2), packs

    def forward(self, x, lengths):
        if self.packs:
            return self.rnn(x, lengths=lengths)[0]
        return pad_packed_sequence(self.rnn(pack_padded_sequence(x, lengths, enforce_sorted=False))[0])[0]


@pytest.mark.each_value
@pytest.mark.parametrize("criterion", ["jacobian", "grasp", "synflow", "snip", "magnitude"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_subclass_that_wraps_forward_gets_the_masks_of_the_plain_layer(kind, criterion):
    x, lengths = torch.randn(STEPS, BATCH, INPUTS), torch.tensor([5, 1, 7, 5])
    before = KINDS[kind].forward
    plain, wrapped = (
        prune(
            Padded(cls, packs),
            (x, lengths),
            sparsity=0.5,
            criterion=criterion,
            loss_fn=lambda model, batch: model(*batch).square().mean(),
            rounds=2,
        )
        for cls, packs in ((KINDS[kind], False), (wrapping(KINDS[kind]), True))
    )
    assert wrapped.digest() == plain.digest()
    assert KINDS[kind].forward is before


class Itself(nn.LSTM):
    """Runs without ``super().forward``."""

    def forward(self, x):
        return torch.tanh(x @ self.weight_ih_l0.t()), None


@pytest.mark.parametrize("criterion", ["jacobian", "grasp", "synflow"])
def test_a_forward_that_does_not_call_the_registered_one_is_refused(criterion):
    model = nn.Sequential(Itself(INPUTS, UNITS))
    with pytest.raises(ValueError, match=r"Itself has a forward of its own that does not call LSTM's.*register_cell"):
        prune(
            model,
            torch.randn(STEPS, BATCH, INPUTS),
            sparsity=0.5,
            criterion=criterion,
            loss_fn=lambda model, x: model(x)[0].square().mean(),
        )
    assert prune(model, None, sparsity=0.5, criterion="magnitude").sparsity == 0.5
    assert not model[0]._forward_pre_hooks


class Carrying(nn.Module):
    """Carries its state from part to part of a sequence, in place or as the next tensor."""

    def __init__(self, kind, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.in_place = kind(INPUTS, UNITS).double(), in_place
        self.register_buffer("h", torch.randn(1, BATCH, UNITS, dtype=torch.float64))

    def forward(self, x, parts=2):
        for part in x.chunk(parts):
            output, h = self.rnn(part, self.h)
            if self.in_place:
                self.h.copy_(h)
            else:
                self.h = h
        return output


@pytest.mark.parametrize("parts", [1, 3])
def test_a_state_that_is_carried_on_in_place_is_the_one_that_was_given(parts):
    x = torch.randn(6, BATCH, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (in_place,), (anew,) = (
        run_unrolled(model, find_recurrent(model), (x, parts))
        for model in (Carrying(nn.GRU, True), Carrying(nn.GRU, False))
    )
    for found, wanted in ((in_place, anew), (in_place.run_as(in_place.layer), anew.run_as(anew.layer))):
        torch.testing.assert_close(found.states, wanted.states)
        torch.testing.assert_close(found.before, wanted.before)


class Called(nn.Module):
    """A sequence module of a user's, whose state has a name of its own and comes by it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = Recurrence()

    def forward(self, x, h):
        return self.inner(x, state=h)[0]


class Recurrence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W, self.U = nn.Parameter(torch.rand(UNITS, INPUTS)), nn.Parameter(torch.rand(UNITS, UNITS))

    def forward(self, x, state):
        outputs = []
        for part in x:
            state = torch.tanh(part @ self.W.T + state[0] @ self.U.T).unsqueeze(0)
            outputs.append(state[0])
        return torch.stack(outputs), state


def test_a_registered_sequence_is_called_by_its_own_keywords(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))

    def step(module, project, x, state):
        return (torch.tanh(project(ih=x, hh=state[0])),)

    register_cell(Recurrence, step=step, kernels={"ih": "W", "hh": "U"}, runs="sequence")
    model, x, h = Called(), torch.randn(STEPS, BATCH, INPUTS), torch.randn(1, BATCH, UNITS)
    (unrolled,) = run_unrolled(model, find_recurrent(model), (x, h))
    torch.testing.assert_close(unrolled.output_TBH, model(x, h))
