import pytest
import torch
from torch import nn

from sparse_rnn.recurrent import PeepholeLSTM, ResetBeforeGRU

KINDS = {
    "rnn": lambda n: nn.RNN(3, n),
    "relu_rnn_2": lambda n: nn.RNN(3, n, 2, nonlinearity="relu"),
    "gru_2_both": lambda n: nn.GRU(3, n, 2, bidirectional=True),
    "lstm_2": lambda n: nn.LSTM(3, n, 2),
    "lstm_no_bias": lambda n: nn.LSTM(3, n, bias=False),
    "projected_lstm_2_both": lambda n: nn.LSTM(3, n, 2, proj_size=2, bidirectional=True),
    "peephole_lstm_2": lambda n: PeepholeLSTM(3, n, 2),
    "diagonal_peephole_lstm_both": lambda n: PeepholeLSTM(3, n, bidirectional=True, peepholes="diagonal"),
    "reset_before_gru_2": lambda n: ResetBeforeGRU(3, n, 2),
}


class Tagger(nn.Module):
    """Recurrent layers, dropout, and a linear layer on every step."""

    def __init__(self, kind: str, units: int) -> None:
        super().__init__()
        self.rnn = KINDS[kind](units)
        features = (getattr(self.rnn, "proj_size", 0) or units) * (1 + self.rnn.bidirectional)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(features, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.rnn(x)[0]))


@pytest.fixture
def tagger():
    """Builds a tagger of a kind in float64, in evaluation mode, the same every time."""

    def tagger(kind: str, units: int = 8) -> Tagger:
        torch.manual_seed(0)
        return Tagger(kind, units).double().eval()

    return tagger


@pytest.fixture
def x() -> torch.Tensor:
    """A batch for it, [T, B, 3]."""
    return torch.randn(6, 40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def pytest_generate_tests(metafunc):
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS)
