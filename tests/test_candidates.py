"""The criteria that benchmarks/recipe tries, which the library does not have."""

import copy
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sparse_rnn.recurrent.kernels import find_targets

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "recipe" / "criteria.py"
SPEC = spec_from_file_location("candidate_criteria", SCRIPT)
criteria = module_from_spec(SPEC)
SPEC.loader.exec_module(criteria)
STEPS, RATE = 3, 0.5


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[1][-1])


@pytest.fixture
def model():
    return Classifier().double()


def trained_loss(model, loss, name, place, change):
    """The loss after some steps of gradient descent, which begin with one weight that is changed by a share."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.get_parameter(name)[place] *= 1 + change
    descent = torch.optim.SGD(model.parameters(), RATE)
    for _ in range(STEPS):
        descent.zero_grad()
        loss(model).backward()
        descent.step()
    return loss(model).item()


def test_prospr_is_how_much_a_weight_moves_the_loss_after_some_steps(model):
    x, labels = torch.randn(8, 4, 2, dtype=torch.float64), torch.randint(2, (8,))

    def loss(model, batch=x):
        return cross_entropy(model(batch), labels)

    before = copy.deepcopy(model.state_dict())
    scores = criteria.ProsPr(STEPS, RATE).score(model, x, loss, find_targets(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, score in scores.items():
        for place in ((0, 0), (4, 1), (8, 1)):
            moved = [trained_loss(model, loss, name, place, change) for change in (1e-5, -1e-5)]
            assert score[place].item() == pytest.approx(abs(moved[0] - moved[1]) / 2e-5, rel=1e-5, abs=1e-10)


def test_phew_never_walks_a_weight_of_zero_and_reaches_those_of_both_kernels(model):
    with torch.no_grad():
        for kernel in find_targets(model).values():
            kernel.parameter[0] = 0  # of one gate of a unit, which the others can be reached by
    scores = criteria.PHEW().score(model, None, None, find_targets(model))
    assert not any(score[0].any() for score in scores.values())
    assert all(score.any() for score in scores.values())
    walked = torch.cat([score.flatten() for score in scores.values()])
    assert len(walked[walked > 0].unique()) == (walked > 0).sum()  # each has a place of its own in the order
