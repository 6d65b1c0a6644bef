import pytest
import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured import RandomUnits, shrink


class Model(nn.Module):
    """A GRU, and a function of it and its outputs that is the rest of the model."""

    def __init__(self, rest, kind=nn.GRU, **layers):
        super().__init__()
        self.rnn, self.rest = kind(3, 6), rest
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.rest(self, *self.rnn(x))


def plan(model, batch=None, loss_fn=None, readers=None, units=4):
    batch = torch.randn(5, 2, 3) if batch is None else batch
    return RandomUnits(units=units, reconstruct=False).plan(model, batch, loss_fn, readers)


def outer(plan):
    return [
        (r.parameter, r.dim, r.columns.tolist()) for unit_plan in plan for r in unit_plan.readers if not r.recurrent
    ]


FIRST = list(range(6))


def test_readers_are_taken_as_they_are_declared():
    rest = lambda m, y, h: torch.einsum("tbh,oh->tbo", y, m.head.weight)  # noqa: E731 - a loss in a line
    model = Model(rest, head=nn.Linear(6, 2))
    with pytest.raises(UsageError, match="no product with a parameter"):
        plan(model)
    found = plan(model, readers={"rnn": ["head"]})
    assert outer(found) == [("head.weight", 1, FIRST)]
    assert shrink(model, found)(torch.randn(5, 2, 3)).shape == (5, 2, 2)
    assert outer(plan(model, readers={"rnn": ["head.weight"]})) == outer(found)
    for readers, message in [
        ({"lstm": ["head"]}, "lstm, which is none of rnn"),
        ({"rnn": ["tail"]}, "tail, which is no weight"),
        ({"rnn": ["rnn"]}, "has 3 columns for 6 units"),
    ]:
        with pytest.raises(UsageError, match=message):
            plan(model, readers=readers)
