import pytest
import torch
from torch import nn

from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

INPUTS, UNITS = 3, 5
MODULES = {
    "rnn_tanh": lambda **options: nn.RNN(INPUTS, UNITS, **options),
    "rnn_relu": lambda **options: nn.RNN(INPUTS, UNITS, nonlinearity="relu", **options),
    "gru": lambda **options: nn.GRU(INPUTS, UNITS, **options),
    "gru_reset_before": lambda **options: ResetBeforeGRU(INPUTS, UNITS, **options),
    "lstm": lambda **options: nn.LSTM(INPUTS, UNITS, **options),
    "peephole_lstm": lambda **options: PeepholeLSTM(INPUTS, UNITS, **options),
    "diagonal_peephole_lstm": lambda **options: PeepholeLSTM(INPUTS, UNITS, peepholes="diagonal", **options),
}


@pytest.fixture(params=MODULES)
def cell(request) -> str:
    """The name of each cell that has a module."""
    return request.param


@pytest.fixture
def build(cell):
    """Builds the module of a cell in float64, always with the same weights."""

    def build(**options) -> nn.Module:
        torch.manual_seed(0)
        return MODULES[cell](**options).double()

    return build
