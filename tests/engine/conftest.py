import pytest
import torch
from torch import nn

from sparse_rnn.engine.compact import sparse_layer
from sparse_rnn.recurrent import find_recurrent
from sparse_rnn.recurrent.peephole import PeepholeLSTM

KINDS = {
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
    "gru": nn.GRU,
    "lstm": nn.LSTM,
    "projected_lstm": lambda *sizes, **options: nn.LSTM(*sizes, proj_size=max(1, sizes[1] // 2), **options),
    "peephole_lstm": PeepholeLSTM,
    "diagonal_peephole_lstm": lambda *sizes, **options: PeepholeLSTM(*sizes, peepholes="diagonal", **options),
}


@pytest.fixture(scope="session")
def pruned():
    """Makes a dense layer of which few weights are not 0; some rows are empty, and at density 0 all."""

    def pruned(kind, inputs=20, units=19, density=0.1, **options):
        torch.manual_seed(0)
        layer = KINDS[kind](inputs, units, **options)
        for name, parameter in layer.named_parameters():
            if name.startswith("weight"):
                kept = torch.rand_like(parameter) < density
                kept[torch.rand(len(kept)) < 0.2] = False
                parameter.data.mul_(kept)
        return layer

    return pruned


@pytest.fixture(scope="session")
def sparse():
    """Makes the sparse layer of a dense one, however large it is."""

    def sparse(layer, dtype=torch.float32):
        [found] = find_recurrent(layer)
        return sparse_layer(found, {}, dtype)

    return sparse


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param
