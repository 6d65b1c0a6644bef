"""A step is a batch after which an optimizer has stepped; a training has as many as it turns out to have."""

import time
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, EarlyStopping, GradientAccumulationScheduler
from torch import nn

from sparse_rnn import DynamicSparsity, GradualPruning, IterativePruning, LotteryTicket, NarangPruning
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, NarangRamp

BATCHES = 6  # an epoch


class Project(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class ByHand(Project):
    """Steps as ``often`` says: for each batch, how often each of its optimizers steps."""

    often = staticmethod(lambda batch: (1, 0))
    plain = False

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.batches = 0

    def training_step(self, batch, batch_idx):
        optimizers = self.optimizers(use_pl_optimizer=not self.plain)
        for optimizer, times in zip(optimizers, self.often(self.batches), strict=True):
            for _ in range(times):
                optimizer.zero_grad()
                self.manual_backward(self.loss(batch))
                optimizer.step()
        self.batches += 1

    def on_save_checkpoint(self, checkpoint):
        checkpoint["batches"] = self.batches

    def on_load_checkpoint(self, checkpoint):
        self.batches = checkpoint["batches"]

    def configure_optimizers(self):
        half = torch.optim.SGD(self.rnn.parameters(), lr=0.05)
        return [half, torch.optim.Adam(self.parameters(), lr=0.01)]


def by_hand(often, plain=False):
    return type("Made", (ByHand,), {"often": staticmethod(often), "plain": plain})


# How a batch steps, and the number of Lightning's global steps of two epochs.
PATTERNS = {
    "both once": (by_hand(lambda i: (1, 1)), 24),
    "four times": (by_hand(lambda i: (4, 0)), 48),
    "in turn": (by_hand(lambda i: (1, 0) if i % 2 else (0, 1)), 12),
    "one of both": (by_hand(lambda i: (1, 0)), 12),
    "critic more often": (by_hand(lambda i: (1, int(i % 3 == 2))), 16),
    "every third batch": (by_hand(lambda i: (1, 0) if i % 3 == 2 else (0, 0)), 4),
}
METHODS = {
    "gradual": lambda: GradualPruning(0.9, Cubic(0, 0.5, 0.1)),
    "iterative": lambda: IterativePruning(0.9, [0.5, 0.1], every=0.25),
    "narang": lambda: NarangPruning(0.9, schedule=NarangRamp(0.0, 0.3, 0.8, 1)),
    "lottery": lambda: LotteryTicket(0.9, rounds=1, rewind=0.2),
    "dynamic": lambda: DynamicSparsity("gradient", CosineDecay(0.3, 0.25), sparsity=0.9, criterion="magnitude"),
}


class Trail(Callback):
    """Notes the sparsity after each step."""

    def __init__(self, pruning):
        self.pruning, self.sparsities, self.digests = pruning, {}, {}

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.sparsities[self.pruning.step] = self.pruning.masks.sparsity
        self.digests[self.pruning.step] = self.pruning.masks.digest()

    def first(self, sparsity):
        return min((step for step, reached in self.sparsities.items() if reached >= sparsity), default=None)


def fit(train, build, pruning, **options):
    trail = Trail(pruning)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*leaves no update")
        trainer = train(build, [pruning, trail], **options)
    return trainer, trail


@pytest.mark.each_value
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_asked_sparsity_is_reached_under_max_steps_and_max_epochs(train, pattern, method):
    build, global_steps = PATTERNS[pattern]
    for limit in ({"max_epochs": 2}, {"max_epochs": -1, "max_steps": global_steps}):
        pruning = METHODS[method]()
        trainer, trail = fit(train, build, pruning, **limit)
        assert trainer.global_step == global_steps
        assert pruning.step == (4 if pattern == "every third batch" else 12)
        assert pruning.masks.sparsity == pytest.approx(0.9, abs=0.01), limit
        if method == "gradual" and pattern != "critic more often":
            assert trail.first(0.9) == pruning.step // 2
        if method == "dynamic" and pattern not in ("every third batch", "critic more often"):
            assert len(set(trail.digests.values())) > 2


def test_steps_past_lightning_count_as_well(train):
    pruning = GradualPruning(0.9, Cubic(0, 0.5, 0.1))
    trainer, trail = fit(train, by_hand(lambda i: (2, 0), plain=True), pruning, max_epochs=2)
    assert trainer.global_step == 0
    assert pruning.step == 12
    assert trail.first(0.9) == 6


@pytest.mark.each_value
@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 2, "accumulate_grad_batches": 4}, 4),
        ({"max_epochs": 3, "limit_train_batches": 4}, 12),
        ({"max_epochs": 30, "max_steps": 8}, 8),
        ({"max_epochs": -1, "max_steps": 8, "accumulate_grad_batches": 2}, 8),
    ],
)
@pytest.mark.parametrize("method", ["gradual", "iterative", "lottery"])
def test_automatic_optimisation_under_all_limits(train, options, steps, method):
    pruning = METHODS[method]()
    _, trail = fit(train, Project, pruning, **options)
    assert pruning.step == steps
    assert pruning.masks.sparsity == pytest.approx(0.9, abs=0.01)
    if method == "gradual":
        assert trail.first(0.9) == steps // 2


def test_accumulation_that_changes(train):
    pruning = GradualPruning(0.9, Cubic(0, 0.5, 0.1))
    trail = Trail(pruning)
    train(Project, [GradientAccumulationScheduler({0: 1, 1: 3}), pruning, trail], max_epochs=3)
    assert pruning.step == BATCHES + 2 + 2
    assert trail.first(0.9) == 5


def test_a_single_batch_is_enough_and_says_nothing(train):
    pruning = GradualPruning(0.9, Cubic(0, 0.5, 1))
    fit(train, Project, pruning, max_epochs=1, limit_train_batches=1)
    assert pruning.masks.sparsity == pytest.approx(0.9, abs=0.01)


class Slowly(Project):
    def on_train_batch_start(self, *args):
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradual", "lottery"])
def test_time_that_ends_the_training_is_shared_out(train, method):
    pruning = METHODS[method]()
    _, trail = fit(train, Slowly, pruning, max_epochs=-1, max_time={"seconds": 2})
    assert pruning.masks.sparsity == pytest.approx(0.9, abs=0.01)
    if method == "gradual":
        assert 0.2 * pruning.step < trail.first(0.9) < 0.8 * pruning.step


@pytest.mark.parametrize("method", ["gradual", "iterative", "narang", "lottery"])
def test_early_stopping_that_comes_before_the_sparsity_is_told(train, method):
    pruning = METHODS[method]()
    stop = EarlyStopping("loss", patience=0, mode="max", min_delta=10.0, check_on_train_epoch_end=True)
    with pytest.warns(UserWarning, match=r"training ended after step 12.*not the 0\.9 that was asked for"):
        train(Project, [pruning, stop], max_epochs=20)
    assert pruning.masks.sparsity < 0.89


def test_a_training_that_comes_to_the_end_of_its_schedule_ends_in_silence(train):
    stop = EarlyStopping("loss", patience=0, mode="max", min_delta=10.0, check_on_train_epoch_end=True)
    train(Project, [GradualPruning(0.9, Cubic(0, 10, 2)), stop], max_epochs=20)
    train(Project, [GradualPruning(0.0, Cubic(0, 100, 2)), stop], max_epochs=20)


@pytest.mark.each_value
@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 72}])
@pytest.mark.parametrize("method", METHODS)
def test_resumed_runs_go_on_as_the_unbroken_one(train, tmp_path, method, limit):
    build = by_hand(lambda i: (4, 0))
    unbroken, resumed = METHODS[method](), METHODS[method]()

    class Save(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "epoch.ckpt")

    expected = train(build, [unbroken, Save()], **limit).lightning_module
    module = train(build, [resumed], ckpt_path=tmp_path / "epoch.ckpt", **limit).lightning_module
    assert resumed.masks.sparsity == pytest.approx(0.9, abs=0.01)
    if "max_steps" in limit:  # Lightning repeats a batch then
        return
    assert resumed.step == unbroken.step == 18
    assert resumed.masks.digest() == unbroken.masks.digest()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), expected.parameters(), strict=True))
