"""The training step that is borrowed: what it may do to its batch, what it gives, and what is said where it fails."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from sparse_rnn import GradualPruning, LotteryTicket, OneShotPruning, StructuredPruning, UnitLasso
from sparse_rnn.callbacks.borrowing.training_step import training_loss
from sparse_rnn.pruning.schedules import Cubic

SAMPLES = torch.randn(40, 6, 3, generator=torch.Generator().manual_seed(0))


class Stream(IterableDataset):
    """Can be read once, so that units are chosen on the batch that was trained on."""

    def __iter__(self):
        yield from ({"x": x, "y": x.sum()} for x in SAMPLES)


def stream():
    return DataLoader(Stream(), batch_size=8)


class Project(LightningModule):
    """Leaves its batches as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 1)

    def loss(self, batch):
        return (self.head(self.rnn(batch["x"])[0][:, -1])[:, 0] - batch["y"]).square().mean()

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


class Writing(Project):
    """Writes into its batches, and takes things from them."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step({"x": batch["x"].clone(), "y": batch.pop("y")}, batch_idx)
        batch["x"].zero_()
        return loss


@pytest.mark.parametrize(
    "borrow",
    [
        lambda: OneShotPruning(0.5, "snip", num_samples=12),
        lambda: GradualPruning(0.5, Cubic(1, 4, 1), criterion="snip"),
        lambda: LotteryTicket(0.5, rounds=2, criterion="snip"),
        lambda: StructuredPruning(units=4, at=1, criterion="Spectral"),
        lambda: UnitLasso(0.3),
    ],
)
def test_a_step_may_write_into_its_batch(train, borrow):
    def end(build):
        return train(build, [borrow()], data=stream(), limit_train_batches=5, max_epochs=1)

    tidy, writing = (end(build).lightning_module.state_dict() for build in (Project, Writing))
    assert all(torch.equal(value, writing[name]) for name, value in tidy.items())


class Borrowing(Callback):
    """Borrows the step after it has trained on a batch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.loss = training_loss(trainer, transferred=True)(pl_module, batch)
        self.expected = pl_module.loss(batch)


class ByHand(Project):
    """Optimises manually, in two parts, and logs."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("steps", float(self.global_step + 1))
        self.manual_backward(loss / 4)
        self.manual_backward(self.loss(batch) * 3 / 4)
        self.optimizers().step()


@pytest.mark.parametrize("build", [Project, ByHand])
def test_the_loss_is_what_the_project_minimises_and_nothing_else_happens(train, build):
    borrowing = Borrowing()
    trainer = train(build, [borrowing], data=stream(), limit_train_batches=2, max_epochs=1)
    torch.testing.assert_close(borrowing.loss, borrowing.expected)
    assert borrowing.loss.requires_grad
    assert trainer.global_step == 2
    assert trainer.logged_metrics == ({} if build is Project else {"steps": 2.0})


class Hopeful(Project):
    """Prepares in a hook what its training step needs."""

    def on_train_start(self):
        self.scale = 2.0

    def training_step(self, batch, batch_idx):
        return self.scale * self.loss(batch)


def test_a_training_step_that_needs_a_hook_is_explained(train):
    with pytest.raises(RuntimeError, match=r"Hopeful.training_step failed .* 'scale' .*prepare it in __init__"):
        train(Hopeful, [OneShotPruning()], data=stream())
    train(Hopeful, [OneShotPruning(criterion="magnitude")], data=stream(), limit_train_batches=1)


class Lossless(Project):
    automatic_optimization = False  # else Lightning warns of it

    def training_step(self, batch, batch_idx):
        self.loss(batch)


def test_a_training_step_without_a_loss_is_explained(train):
    with pytest.raises(ValueError, match=r"Lossless.training_step gave no loss"):
        train(Lossless, [OneShotPruning(criterion="snip")], data=stream())
    with pytest.raises(ValueError, match=r"Lossless.training_step gave no loss for the batch that was just trained on"):
        train(Lossless, [Borrowing()], data=stream())
