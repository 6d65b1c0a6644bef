import pytest
import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.modules import init_recurrent_, recurrent_layer
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

INPUTS, HIDDEN = 3, 5
CLASSES = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "gru_reset_before": ResetBeforeGRU,
    "lstm": nn.LSTM,
    "peephole_lstm": PeepholeLSTM,
}


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_word_names_a_class_that_reads_batches_first(cell, num_layers):
    layer = recurrent_layer(cell, INPUTS, HIDDEN, num_layers, bidirectional=True)
    assert type(layer) is CLASSES[cell]
    assert (layer.input_size, layer.hidden_size, layer.num_layers) == (INPUTS, HIDDEN, num_layers)
    output, state = layer(torch.zeros(2, 7, INPUTS))
    assert output.shape == (2, 7, 2 * HIDDEN)
    h = state[0] if isinstance(state, tuple) else state
    assert h.shape == (2 * num_layers, 2, HIDDEN)


def test_options_reach_the_class():
    assert recurrent_layer("lstm", INPUTS, HIDDEN, proj_size=2).weight_hr_l0.shape == (2, HIDDEN)
    assert recurrent_layer("rnn", INPUTS, HIDDEN, nonlinearity="relu").nonlinearity == "relu"


@pytest.mark.parametrize("cell", CLASSES)
def test_every_kernel_is_filled_and_only_gates_that_keep_the_state_have_a_bias(cell):
    layer = recurrent_layer(cell, 40, 50, num_layers=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(torch.nan)
    torch.manual_seed(0)
    init_recurrent_(layer, cell, 50, "uniform", 0.3, forget_bias=2.0, update_bias=0.5)
    for name, parameter in layer.named_parameters():
        if name.startswith("weight"):
            assert 0.29 < parameter.abs().max() <= 0.3
        elif name.startswith("bias_ih") and "lstm" in cell:
            assert parameter.tolist() == [0.0] * 50 + [2.0] * 50 + [0.0] * 100
        elif name.startswith("bias_ih") and "gru" in cell:
            assert parameter.tolist() == [0.0] * 50 + [0.5] * 50 + [0.0] * 50
        elif name.startswith("bias"):
            assert not parameter.any()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("gruu", INPUTS, HIDDEN), {}, "cell='gruu': choose one of rnn, gru, gru_reset_before, lstm, peephole_lstm"),
        (("gru", 0, HIDDEN), {}, "input_size=0: give a whole number of at least 1"),
        (("lstm", INPUTS, -1), {}, "hidden_size=-1: give a whole number of at least 1"),
        (("peephole_lstm", INPUTS, HIDDEN, 0), {}, "num_layers=0: give a whole number from 1 to 100000"),
        (("lstm", INPUTS, HIDDEN), {"proj_size": 5}, "proj_size=5: give a size below hidden_size=5"),
        (("lstm", INPUTS, HIDDEN), {"proj_size": -1}, "proj_size=-1: give a size below hidden_size=5"),
    ],
)
def test_what_cannot_be_made_is_refused(arguments, options, message):
    with pytest.raises(UsageError, match=message):
        recurrent_layer(*arguments, **options)


def test_an_unknown_initialisation_is_refused():
    with pytest.raises(UsageError, match="init='xavier': choose one of"):
        init_recurrent_(recurrent_layer("gru", INPUTS, HIDDEN), "gru", HIDDEN, "xavier", None, 1.0)
