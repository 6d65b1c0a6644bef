"""A killed run steps its ReduceLROnPlateau, stops early and chooses its best as the unbroken one does."""

from contextlib import suppress

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.optim.lr_scheduler import ReduceLROnPlateau

from sparse_rnn.data import SequentialDigits
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.modules.run_state import RunState

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


def fit(folder, save, kill=None, val_check_interval=1.0, stops=True, **stopping_options):
    seed_everything(0, verbose=False)
    model = SequenceClassifier(
        8, 10, hidden_size=6, dropout=0.2, input_dropout=0.1,
        lr_scheduler=lambda o: ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=0.2),
    )  # fmt: skip
    newest = max(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, default=None)
    checkpoint = ModelCheckpoint(folder, **SAVES[save])
    stopping = EarlyStopping("val/error", **{"patience": EPOCHS, **stopping_options})
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        val_check_interval=val_check_interval,
        callbacks=[*([stopping] if stops else []), checkpoint, *([] if kill is None else [kill])],
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


def test_dropout_of_a_run_killed_within_an_epoch_draws_as_in_the_unbroken_one(tmp_path):
    unbroken = fit(tmp_path / "unbroken", "every step")
    assert fit(tmp_path / "killed", "every step", Kill(STEPS + 2)) is None
    assert fit(tmp_path / "killed", "every step")["weights"] == unbroken["weights"]


@pytest.mark.parametrize("states", [[{}], [{"cpu": torch.zeros(3, dtype=torch.uint8)}], {"cpu": 1}, [1]])
def test_random_states_that_are_none_are_refused(states):
    with pytest.raises(UsageError, match="random states"):
        RunState().on_load_checkpoint(None, None, {"random_states": states})


@pytest.mark.slow
@pytest.mark.parametrize("interval", [1.0, 2])
@pytest.mark.parametrize("save", SAVES)
def test_a_run_killed_twice_ends_as_the_unbroken_one(tmp_path, save, interval):
    unbroken = fit(tmp_path / "unbroken", save, val_check_interval=interval)
    assert unbroken["lr"] < 1e-3  # the scheduler did something
    killed = tmp_path / "killed"
    for step in (STEPS, 2 * STEPS - 1, 3 * STEPS):
        assert fit(killed, save, Kill(step), interval) is None
    assert fit(killed, save, val_check_interval=interval) == unbroken


class KillAtTheEnd(Callback):
    """Kills a run that early stopping has ended, at a hook that comes after the decision."""

    def __init__(self, hook):
        self._hook = hook

    def kill(self, trainer, hook):
        if trainer.should_stop and hook == self._hook:
            raise Killed

    def on_validation_end(self, trainer, pl_module):
        self.kill(trainer, "validation")

    def on_train_epoch_end(self, trainer, pl_module):
        self.kill(trainer, "epoch")

    def on_train_end(self, trainer, pl_module):
        self.kill(trainer, "training")


SOON = {"patience": 1, "min_delta": 0.9}


@pytest.mark.slow
@pytest.mark.parametrize("at_epoch_end", [True, False])
@pytest.mark.parametrize("save", SAVES)
def test_a_run_that_early_stopping_has_ended_stays_so(tmp_path, save, at_epoch_end):
    """As the unbroken one, whether it was killed right after the decision or came to its end."""
    options = {**SOON, "check_on_train_epoch_end": at_epoch_end}
    unbroken = fit(tmp_path / "unbroken", save, **options)
    assert unbroken["steps"] == 2 * STEPS
    assert fit(tmp_path / "unbroken", save, **options) == unbroken
    for hook in ("training",) if at_epoch_end else ("validation", "epoch", "training"):
        assert fit(tmp_path / hook, save, KillAtTheEnd(hook), **options) is None
        assert fit(tmp_path / hook, save, **options) == unbroken


@pytest.mark.parametrize("save", SAVES)
def test_nor_does_it_train_to_the_end_of_an_epoch_within_which_it_was_ended(tmp_path, save):
    unbroken = fit(tmp_path, save, None, 2, **SOON)
    assert unbroken["steps"] == 4
    resumed = fit(tmp_path, save, None, 2, **SOON)
    assert [resumed[name] for name in ("steps", "weights")] == [unbroken[name] for name in ("steps", "weights")]


def test_nor_does_it_train_on_where_a_threshold_has_ended_it_in_its_first_epoch(tmp_path):
    options = {"val_check_interval": 2, "stopping_threshold": 101.0}
    unbroken = fit(tmp_path, "every step", **options)
    assert unbroken["steps"] == 2
    assert fit(tmp_path, "every step", **options)["weights"] == unbroken["weights"]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
def test_without_early_stopping_it_trains_on(tmp_path):
    fit(tmp_path, "the best", **SOON)
    assert fit(tmp_path, "the best", stops=False)["steps"] == EPOCHS * STEPS


class Ends(Callback):
    """Ends a run as a ``Timer`` does."""

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


def test_a_run_that_something_else_has_ended_goes_on(tmp_path):
    assert fit(tmp_path, "the best", Ends())["steps"] == STEPS
    assert fit(tmp_path, "the best")["steps"] == EPOCHS * STEPS


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
