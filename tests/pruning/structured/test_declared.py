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


def test_a_reader_that_reads_both_ways_has_both_of_its_kernels():
    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn1, self.rnn2 = nn.GRU(3, 4), nn.GRU(4, 5, num_layers=2, bidirectional=True)

        def forward(self, x):
            return self.rnn2(self.rnn1(x)[0])[0]

    model, x = Stack(), torch.randn(6, 2, 3)
    found = plan(model, readers={"rnn1": ["rnn2"]}, units={"rnn1": 2})
    assert outer(found) == [(f"rnn2.weight_ih_l0{way}", 1, [0, 1, 2, 3]) for way in ("", "_reverse")]
    kept = found["rnn1.l0"].kept
    small = shrink(model, found)
    removed = torch.ones(4, dtype=torch.bool)
    removed[kept] = False
    with torch.no_grad():
        model.rnn1.weight_hh_l0[:, removed] = 0
        for way in ("", "_reverse"):
            model.rnn2.get_parameter(f"weight_ih_l0{way}")[:, removed] = 0
    torch.testing.assert_close(small(x), model(x))
