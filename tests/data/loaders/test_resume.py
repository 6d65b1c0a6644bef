"""A run that is stopped and resumed trains on the batches, and ends with the parameters, of an unbroken one."""

from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from packaging.version import Version

from sparse_rnn.data import SequentialDigits

# Resuming writes into the folder of the stopped run, as a user's second command does.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")

EPOCHS = 3
BATCH_SIZE = 256  # five batches an epoch, the last one smaller


class Linear(LightningModule):
    """Remembers the labels of every batch it trained on."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.seen = []

    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.layer(x.flatten(1)), y)

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[1].tolist())
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


class ReadsAhead(Callback):
    """Takes two training batches before training begins, as one-shot pruning does."""

    def on_fit_start(self, trainer, pl_module):
        trainer.fit_loop.setup_data()
        batches = iter(trainer.train_dataloader)
        next(batches), next(batches)


def fit(folder: Path, *callbacks: Callback, ckpt_path: str | None = None, **limits) -> Linear:
    torch.manual_seed(0)
    model = Linear()
    trainer = Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        **limits,
    )
    trainer.fit(model, datamodule=SequentialDigits(batch_size=BATCH_SIZE), ckpt_path=ckpt_path)
    return model


# name: (when checkpoints are written, where the first run stops, limits of both runs)
STOPS = {
    "mid-epoch": ({"every_n_train_steps": 7}, {"max_steps": 7}, {}),
    "mid-epoch, after the last checkpoint": ({"every_n_train_steps": 6}, {"max_steps": 8}, {}),
    "mid-epoch, then an epoch's checkpoint": ({"save_last": True}, {"max_steps": 8}, {}),
    "in the first epoch": ({"every_n_train_steps": 1}, {"max_steps": 1}, {}),
    "in the first epoch, then an epoch's checkpoint": ({"save_last": True}, {"max_steps": 1}, {}),
    "at the last batch": ({"every_n_train_steps": 5}, {"max_steps": 5}, {}),
    "at the last batch, then an epoch's checkpoint": ({"save_last": True}, {"max_steps": 5}, {}),
    "after an epoch": ({"save_last": True}, {"max_epochs": 1}, {}),
    "after an epoch, saved after training it": ({"save_on_train_epoch_end": True}, {"max_epochs": 2}, {}),
    "after an epoch, saved after validation": ({"save_on_train_epoch_end": False}, {"max_epochs": 2}, {}),
    "after a validation mid-epoch": (
        {"monitor": "val/loss", "save_on_train_epoch_end": False},
        {"max_steps": 8},
        {"val_check_interval": 2},
    ),
    "after an epoch made shorter": ({"save_last": True}, {"max_epochs": 1}, {"limit_train_batches": 3}),
    "mid-epoch, without validation": ({"save_last": True}, {"max_steps": 8}, {"limit_val_batches": 0}),
    "after an epoch, without validation": ({"save_last": True}, {"max_epochs": 1}, {"limit_val_batches": 0}),
}


@pytest.mark.each_value
@pytest.mark.parametrize("end", ["max_epochs", "max_steps", "both"])
@pytest.mark.parametrize("stop", STOPS)
def test_resumed_run_equals_the_unbroken_one(stop, end, tmp_path):
    when, stopped_at, limits = STOPS[stop]
    unbroken = fit(tmp_path, max_epochs=EPOCHS, **limits)
    total = unbroken.trainer.global_step

    checkpoint = ModelCheckpoint(dirpath=tmp_path, **when)
    stopped = fit(tmp_path, checkpoint, **stopped_at, **limits)
    path = checkpoint.last_model_path or checkpoint.best_model_path
    steps = torch.load(path, weights_only=True)["global_step"]
    assert 0 < steps < total

    ends = {"max_epochs": EPOCHS, "max_steps": total}
    ends = ends if end == "both" else {end: ends[end]}
    resumed = fit(tmp_path, ModelCheckpoint(dirpath=tmp_path, **when), ckpt_path=path, **ends, **limits)
    assert stopped.seen[:steps] + resumed.seen == unbroken.seen
    assert (resumed.trainer.global_step, resumed.trainer.current_epoch) == (total, EPOCHS)
    assert torch.equal(resumed.layer.weight, unbroken.layer.weight)
    assert torch.equal(resumed.layer.bias, unbroken.layer.bias)


@pytest.mark.skipif(Version(lightning.__version__) < Version("2.6"), reason="Lightning validates by no clock")
def test_a_run_that_validates_by_the_clock_goes_on_in_mid_epoch(tmp_path):
    clock = {"val_check_interval": "00:01:00:00"}
    unbroken = fit(tmp_path, max_epochs=EPOCHS, **clock)
    checkpoint = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=7)
    fit(tmp_path, checkpoint, max_steps=7, **clock)
    again = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=7)
    resumed = fit(tmp_path, again, ckpt_path=checkpoint.best_model_path, max_epochs=EPOCHS, **clock)
    assert resumed.seen == unbroken.seen[7:]
    assert torch.equal(resumed.layer.weight, unbroken.layer.weight)


def test_asking_for_batches_before_progress_is_restored_warns(tmp_path):
    checkpoint = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    fit(tmp_path, checkpoint, ReadsAhead(), max_steps=2)
    with pytest.warns(UserWarning, match="that epoch starts anew"):
        fit(tmp_path, checkpoint, ReadsAhead(), ckpt_path=checkpoint.last_model_path, max_epochs=EPOCHS)


def test_batches_read_ahead_change_nothing(tmp_path):
    unbroken = fit(tmp_path, max_epochs=EPOCHS)
    checkpoint = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, save_top_k=-1)
    model = fit(tmp_path, ReadsAhead(), checkpoint, max_epochs=EPOCHS)
    assert model.seen == unbroken.seen
    assert torch.equal(model.layer.weight, unbroken.layer.weight)
    positions = {
        state["global_step"]: state["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["position"]
        for state in (torch.load(path, weights_only=True) for path in tmp_path.glob("*.ckpt"))
    }
    assert positions == {step: step % 5 for step in range(1, EPOCHS * 5 + 1)}


def test_overfitting_repeats_the_same_batches(tmp_path):
    model = fit(tmp_path, max_epochs=EPOCHS, overfit_batches=2)
    assert model.seen == model.seen[:2] * EPOCHS
