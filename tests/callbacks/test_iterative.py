"""IterativePruning: the paper's L2 baseline, and other criteria at the same densities."""

import warnings

import pytest
import torch
from last_step import Project as LastStep
from lightning.pytorch import Callback
from torch import nn

from sparse_rnn import IterativePruning

DENSITIES = [0.8, 0.6, 0.4, 0.2, 0.1, 0.05]
TOTAL = 4 * 8 * (3 + 8)


class Project(LastStep):
    layer = nn.LSTM


class Kept(Callback):
    def __init__(self, pruning) -> None:
        self.pruning = pruning
        self.counts = []
        self.weights = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.counts.append(self.pruning.masks.kept)
        self.weights.append({name: pl_module.get_parameter(name).detach().clone() for name in self.pruning.masks})


@pytest.mark.parametrize("criterion", ["magnitude", "jacobian"])
def test_the_densities_of_the_paper_one_after_the_other(train, criterion):
    pruning = IterativePruning(0.95, every=2, criterion=criterion)
    kept = Kept(pruning)
    train(Project, [pruning, kept], max_epochs=3)
    levels = [1.0, *DENSITIES]
    assert kept.counts == [round(TOTAL * levels[min(step // 2, 6)]) for step in range(1, 19)]


def test_survivors_are_not_rewound(train):
    pruning = IterativePruning(0.9, every=3)
    kept = Kept(pruning)
    train(Project, [pruning, kept], max_epochs=3)
    last = torch.cat([weight[pruning.masks[name]] for name, weight in kept.weights[-1].items()])
    first = torch.cat([weight[pruning.masks[name]] for name, weight in kept.weights[0].items()])
    assert (last != first).all()


def test_own_densities_that_stop_at_the_wished_one(train):
    pruning = IterativePruning(0.75, [0.5, 0.3, 0.1], every=0.1)
    kept = Kept(pruning)
    train(Project, [pruning, kept], max_epochs=5)
    assert kept.counts[2:9:3] == [TOTAL // 2, round(0.3 * TOTAL), TOTAL // 4]
    assert kept.counts[-1] == TOTAL // 4


def test_the_papers_10_000_steps_are_more_than_a_short_training_has(train):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(Project, [IterativePruning()])
    [message] = [str(w.message) for w in caught if "IterativePruning" in str(w.message)]
    assert "removes weights until step 60,000, but training ends after 12" in message
