import pytest
import torch
from torch import nn


class Tagger(nn.Module):
    """A model with state of its own: dropout, batch norm, a hidden state it carries along, a list that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.rnn = nn.LSTM(3, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, 2)
        self.hidden = None
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        output, self.hidden = self.rnn(self.drop(x))
        self.seen.append(len(x))
        return self.head(output)


@pytest.fixture
def build():
    """Builds the same model every time."""

    def build() -> Tagger:
        torch.manual_seed(0)
        return Tagger()

    return build


@pytest.fixture
def model(build) -> Tagger:
    return build()


@pytest.fixture
def x() -> torch.Tensor:
    """A batch for it."""
    return torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(3))
