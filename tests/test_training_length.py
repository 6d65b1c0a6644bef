"""The length of a training, in steps, is known before its first step where optimisation is automatic."""

from math import inf

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn.training_length import training_steps

BATCHES = 6

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.max_epochs. was not set")


class Project(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def on_train_start(self):
        self.expected = training_steps(self.trainer)


class ByHand(Project):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    def configure_optimizers(self):
        return [super(ByHand, self).configure_optimizers() for _ in range(2)]


def train(folder, build=Project, callbacks=(), **options):
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(
        accelerator="cpu", default_root_dir=folder, enable_checkpointing=False, callbacks=[*callbacks], **options
    )
    model = build()
    trainer.fit(model, DataLoader(TensorDataset(torch.ones(BATCHES, 3))))
    return model.expected, trainer.global_step


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 2}, 12),
        ({"max_epochs": 2, "accumulate_grad_batches": 4}, 4),
        ({"max_epochs": 2, "limit_train_batches": 5}, 10),
        ({"max_steps": 8, "max_epochs": -1}, 8),
        ({"max_steps": 80, "max_epochs": 1}, 6),
        ({"max_steps": 2, "max_epochs": 10**12}, 2),  # counting one epoch after the other would never end
    ],
)
def test_epochs_batches_accumulation_and_max_steps_count(tmp_path, options, steps):
    assert train(tmp_path, **options) == (steps, steps)


@pytest.mark.parametrize(("accumulation", "steps"), [({0: 4, 2: 3}, 2 + 2 + 2), ({1: 6}, 6 + 1 + 1)])
def test_accumulation_may_change_from_epoch_to_epoch(tmp_path, accumulation, steps):
    made = train(tmp_path, callbacks=[GradientAccumulationScheduler(accumulation)], max_epochs=3)
    assert made == (steps, steps)


@pytest.mark.parametrize(
    ("options", "steps"), [({"max_steps": 8, "max_epochs": -1}, 4), ({"max_steps": 11, "max_epochs": 2}, 6)]
)
def test_max_steps_counts_the_steps_of_each_optimizer(tmp_path, options, steps):
    expected, _ = train(tmp_path, ByHand, **options)
    assert expected == steps


def test_time_is_no_number_of_steps(tmp_path):
    expected, _ = train(tmp_path, max_epochs=-1, max_time={"seconds": 0.2})
    assert expected == inf
