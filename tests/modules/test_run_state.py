"""A killed run steps its ReduceLROnPlateau, stops early and chooses its best as the unbroken one does."""

from contextlib import suppress

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.optim.lr_scheduler import ReduceLROnPlateau

from sparse_rnn.data import SequentialDigits
from sparse_rnn.modules import SequenceClassifier

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
EPOCHS, STEPS = 4, 5
SAVES = {
    "every step": {"every_n_train_steps": 1, "save_top_k": -1},
    "after the last batch": {"every_n_train_steps": STEPS, "save_top_k": -1},
    "after validation": {"save_on_train_epoch_end": False, "save_top_k": -1},
    "after the epoch": {"save_on_train_epoch_end": True, "save_top_k": -1},
    "the best": {"monitor": "val/error", "save_last": True},
}


class Killed(BaseException):
    pass


class Kill(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise Killed


def fit(folder, save, kill=None, val_check_interval=1.0):
    seed_everything(0, verbose=False)
    model = SequenceClassifier(
        8, 10, hidden_size=6, lr_scheduler=lambda o: ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=0.2)
    )
    newest = max(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, default=None)
    checkpoint = ModelCheckpoint(folder, **SAVES[save])
    stopping = EarlyStopping("val/error", patience=EPOCHS)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        val_check_interval=val_check_interval,
        callbacks=[stopping, checkpoint, *([] if kill is None else [Kill(kill)])],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(model, SequentialDigits(batch_size=256), ckpt_path=newest)
    except Killed:
        return None
    progress = trainer.fit_loop.epoch_progress
    return {
        "steps": trainer.global_step,
        "epochs": (progress.total, progress.current),
        "lr": trainer.optimizers[0].param_groups[0]["lr"],
        "scheduler": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        "stopping": {**stopping.state_dict(), "best_score": float(stopping.best_score)},
        "best": checkpoint.best_model_score,
        "weights": {name: value.tolist() for name, value in model.state_dict().items()},
    }


@pytest.mark.parametrize("interval", [1.0, 2])
@pytest.mark.parametrize("save", SAVES)
def test_a_run_killed_twice_ends_as_the_unbroken_one(tmp_path, save, interval):
    unbroken = fit(tmp_path / "unbroken", save, val_check_interval=interval)
    assert unbroken["lr"] < 1e-3  # the scheduler did something
    killed = tmp_path / "killed"
    for step in (STEPS, 2 * STEPS - 1, 3 * STEPS):
        assert fit(killed, save, step, interval) is None
    assert fit(killed, save, val_check_interval=interval) == unbroken


def test_a_finished_run_that_is_resumed_to_be_longer_steps_for_its_last_epoch(tmp_path):
    unbroken = fit(tmp_path, "after the epoch")
    again = fit(tmp_path, "after the epoch")  # nothing is left to train
    assert torch.isclose(torch.tensor(again["lr"]), torch.tensor(unbroken["lr"]))
    assert again["scheduler"] == unbroken["scheduler"]


class SaveAndEnd(Callback):
    """Saves between two batches of one step, and ends there."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 1 and batch_idx == 2:
            trainer.save_checkpoint(trainer.default_root_dir + "/last.ckpt")
            raise Killed


def accumulated(folder, *callbacks):
    seed_everything(0, verbose=False)
    model = SequenceClassifier(8, 10, hidden_size=6)
    saved = folder / "last.ckpt"
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        accumulate_grad_batches=2,
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    with suppress(Killed):
        trainer.fit(model, SequentialDigits(batch_size=256), ckpt_path=saved if saved.exists() else None)
    return {name: value.tolist() for name, value in model.state_dict().items()}


def test_gradients_that_are_accumulated_are_saved_and_go_on(tmp_path):
    unbroken = accumulated(tmp_path)
    accumulated(tmp_path, SaveAndEnd())
    assert [sorted(rank) for rank in torch.load(tmp_path / "last.ckpt", weights_only=True)["gradients"]] == [
        sorted(name for name in unbroken if not name.startswith("accuracy"))
    ]
    assert accumulated(tmp_path) == unbroken
