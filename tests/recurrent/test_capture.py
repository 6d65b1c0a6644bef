"""The unrolled modules that stand in while a model runs return what the fused ones do."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from sparse_rnn.recurrent.capture import run_unrolled
from sparse_rnn.recurrent.layers import find_recurrent
from sparse_rnn.recurrent.peephole import PeepholeLSTM

INPUTS, UNITS, STEPS, BATCH = 3, 5, 7, 4
KINDS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM, "peephole_lstm": PeepholeLSTM}


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


def test_a_module_with_a_forward_of_its_own_is_refused():
    class Mine(nn.LSTM):
        def forward(self, x):
            return super().forward(2 * x)

    model = nn.Sequential(Mine(INPUTS, UNITS))
    with pytest.raises(ValueError, match="Mine has a forward of its own"):
        run_unrolled(model, find_recurrent(model), torch.randn(STEPS, BATCH, INPUTS))
