import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence

from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

INPUTS, UNITS, CLASSES, BATCH, STEPS = 2, 3, 3, 5, 4
KINDS = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "gru_reset_before": ResetBeforeGRU,
    "lstm": nn.LSTM,
    "peephole_lstm": PeepholeLSTM,
}


class Classifier(nn.Module):
    def __init__(self, kind: str, packed: bool = False, **kwargs) -> None:
        super().__init__()
        self.rnn = KINDS[kind](INPUTS, UNITS, **kwargs)
        self.head = nn.Linear(UNITS * (2 if kwargs.get("bidirectional") else 1), CLASSES)
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        if not self.packed:
            return self.head(self.rnn(x)[0].mean(0))
        output, _ = self.rnn(pack_padded_sequence(x, torch.tensor([4, 2, 3, 1, 4]), enforce_sorted=False))
        return self.head(output.data).mean(0, keepdim=True).expand(BATCH, -1)


@pytest.fixture
def build():
    """Builds a classifier of sequences in float64 from a fixed seed, and a batch of inputs and classes for it."""

    def build(kind: str, **kwargs) -> tuple[Classifier, tuple[Tensor, Tensor]]:
        torch.manual_seed(0)
        model = Classifier(kind, **kwargs).double()
        return model, (torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64), torch.randint(CLASSES, (BATCH,)))

    return build


@pytest.fixture
def loss_fn():
    """The loss of such a classifier on such a batch."""
    return lambda model, batch: cross_entropy(model(batch[0]), batch[1])


@pytest.fixture
def kernels():
    """The recurrent kernels of such a classifier, by name."""
    return lambda model: {name: p for name, p in model.named_parameters() if name.startswith("rnn.weight")}


@pytest.fixture
def central_differences():
    """Computes d function / d parameter, one weight at a time; the function may return a vector."""

    def central_differences(parameter: nn.Parameter, function, step: float = 1e-5) -> Tensor:
        columns = []
        flat = parameter.data.view(-1)
        for i in range(len(flat)):
            value = flat[i].item()
            flat[i] = value + step
            above = function()
            flat[i] = value - step
            below = function()
            flat[i] = value
            columns.append((above - below) / (2 * step))
        return torch.stack(columns)

    return central_differences
