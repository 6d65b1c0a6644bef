import pytest
import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured import RandomUnits


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


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (
            lambda m, y, h: m.head(m.norm(y)),
            r"norm \(layer_norm\) normalises over them.*\. Leave the layer out, or.*readers=\{\"rnn\"",
        ),
        (lambda m, y, h: m.head(torch.bmm(y, y.transpose(1, 2)) @ y), "head.weight reads what mixes units"),
        (lambda m, y, h: y.square().mean(), "what the run returns depends on many units at once"),
        (lambda m, y, h: m.head(y + m.bias), "head.weight reads what adds units to something else"),
        (lambda m, y, h: m.small(y[..., :3]), "small.weight reads what has only some of the 6 units"),
        (lambda m, y, h: (y, h), "Nothing in the run has read"),
        (lambda m, y, h: m.head(y)[-1] + m.head(torch.ones(6)), "reads them in some calls and other things in others"),
    ],
)
def test_what_cannot_follow_is_refused_by_name(rest, message):
    layers = {"head": nn.Linear(6, 2), "norm": nn.LayerNorm(6), "small": nn.Linear(3, 1)}
    model = Model(rest, bias=nn.Parameter(torch.randn(6)), **layers)
    with pytest.raises(UsageError, match=message):
        plan(model)


def test_an_initial_state_that_is_computed_from_parameters_is_refused():
    class Begins(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head, self.begin = nn.GRU(3, 6), nn.Linear(6, 2), nn.Parameter(torch.zeros(1, 1, 6))

        def forward(self, x):
            return self.head(self.rnn(x, self.begin.expand(1, x.shape[1], 6))[0])

    with pytest.raises(
        UsageError, match=r"initial state of rnn\.l0 is computed from parameters.*: leave the layer out, or let"
    ):
        plan(Begins())


def test_a_run_may_change_parameters_by_their_data():
    def clamped(model, y, h):
        model.head.weight.data.clamp_(-1, 1)
        return model.head(y)

    assert len(plan(Model(clamped, head=nn.Linear(6, 2)))["rnn.l0"].kept) == 4
