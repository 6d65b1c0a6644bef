"""Correct where Lightning goes on with a resumed run."""

from math import inf
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from sparse_rnn.lightning_compat import (
    count_logged_step,
    enter_epoch,
    validate_anew,
    validates_in_epoch,
    validation_is_over,
)
from sparse_rnn.lightning_loaders import loader_states


def go_on_where_stopped(trainer: Trainer) -> None:
    """Correct the progress that Lightning has restored from a checkpoint, before it sets up the training batches.

    Without this, Lightning takes an epoch that ``max_steps`` cut short for a finished one and drops the rest of its
    batches; where the resumed run has a ``max_steps`` itself, it trains a finished epoch a second time; and where the
    checkpoint was saved because of an exception, Ctrl-C included, it drops the batch that was being trained on. Where
    it was saved at the end of a batch that a validation follows, or of the last one of an epoch, Lightning leaves out
    that validation and the end of the epoch, miscounts the epochs from then on, and trains one too many if the run is
    stopped and resumed again.

    Args:
        trainer: A trainer that is about to set up its training batches. One that does not resume is left alone. Where
            it has not restored its progress yet, nothing can be corrected, and a warning says so.

    Example:
        A data module calls this at the beginning of its ``train_dataloader``:

        >>> from lightning.pytorch import LightningDataModule
        >>> from sparse_rnn.data.loaders import BatchLoader, go_on_where_stopped
        >>> class MyData(LightningDataModule):
        ...     def train_dataloader(self):
        ...         go_on_where_stopped(self.trainer)
        ...         return BatchLoader(self.samples, batch_size=32, shuffle=True)
    """
    if trainer.ckpt_path is None:
        return
    epoch: Any = trainer.fit_loop.epoch_progress  # Lightning's annotation lacks `processed`
    batch: Any = trainer.fit_loop.epoch_loop.batch_progress
    if not epoch.total.ready:
        rank_zero_warn(
            "The training batches were asked for before Lightning restored its progress from the checkpoint, as"
            " `estimated_stepping_batches` in `configure_optimizers` does: if the run was stopped in the middle of an"
            " epoch, that epoch starts anew. Compute the number of steps in another way to go on where it stopped."
        )
        return
    _forget_unfinished(trainer, batch)
    over = bool(epoch.current.processed >= epoch.current.ready or epoch.current.started < epoch.current.ready)
    cut = over and epoch.current.started >= epoch.current.ready and batch.current.ready and not batch.is_last_batch
    in_the_middle = bool(cut or not over)
    _count_epochs(epoch, epoch.current.processed - bool(cut), in_the_middle)
    enter_epoch(trainer, in_the_middle)
    if in_the_middle and batch.current.ready:
        _end_batch(trainer, batch)


def _forget_unfinished(trainer: Trainer, batch: Any) -> None:
    """Go back to before a batch that an exception has interrupted."""
    unfinished = batch.current.ready - batch.current.processed
    for state in _resumable(trainer):
        state["position"] = (state["position"] - unfinished) % state["batches"]
    if unfinished:
        batch.is_last_batch = False
        for count in (batch.total, batch.current):
            count.ready = count.started = count.processed


def _count_epochs(epoch: Any, finished: int, in_the_middle: bool) -> None:
    """Count the epochs as Lightning does between two batches, or two epochs: from other counts it goes on wrongly."""
    epoch.total.processed += finished - epoch.current.processed
    epoch.current.processed = finished
    for count in (epoch.total, epoch.current):
        count.completed = count.processed
        count.ready = count.started = count.processed + in_the_middle


def _end_batch(trainer: Trainer, batch: Any) -> None:
    """Let what follows a batch follow it, for as far as it had not come: a validation, and the end of the epoch."""
    saved_in_batch = batch.current.completed < batch.current.processed
    for count in (batch.total, batch.current):
        count.completed = count.processed
    due = _validation_is_due(trainer, batch)
    if due and (saved_in_batch or not validation_is_over(trainer)):
        validate_anew(trainer)
    elif not due:
        if saved_in_batch:
            count_logged_step(trainer)
        if batch.is_last_batch:
            _exhaust(trainer)


def _validation_is_due(trainer: Trainer, batch: Any) -> bool:
    """Tell whether a validation follows the batch; Lightning itself knows once it has set up the loader."""
    if not validates_in_epoch(trainer):
        return False
    options: Any = trainer  # Lightning sets them from another class, where mypy does not see them
    every, by_epoch = getattr(options, "val_check_interval", None), options.check_val_every_n_epoch is not None
    if every is None:  # the clock says when, and it begins anew: Lightning does not set the interval then
        return False
    if isinstance(every, float):  # a share of the epoch
        size = batch.current.ready if batch.is_last_batch else _size(trainer)
        every = max(1, int(size * every)) if size else inf
    return bool((batch.current if by_epoch else batch.total).ready % every == 0)


def _exhaust(trainer: Trainer) -> None:
    """Let an epoch end that has no batch left: Lightning asks for one more where no validation follows."""
    for state in _resumable(trainer):
        state["position"] = state["batches"]


def _resumable(trainer: Trainer) -> list[dict[str, Any]]:
    """Return the states of ResumableLoaders, to be changed in place."""
    return [state for state in loader_states(trainer) if "position" in state and "batches" in state]


def _size(trainer: Trainer) -> int | None:
    """Count the batches of an epoch; None where the checkpoint does not tell."""
    size = next((state["batches"] for state in _resumable(trainer)), None)
    limit: int | float = trainer.limit_train_batches
    return size if size is None else min(size, limit) if isinstance(limit, int) else int(size * limit)
