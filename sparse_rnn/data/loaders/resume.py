"""Correct where Lightning goes on with a resumed run."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from sparse_rnn.lightning_compat import enter_epoch, loader_states


def go_on_where_stopped(trainer: Trainer) -> None:
    """Correct the progress that Lightning has restored from a checkpoint, before it sets up the training batches.

    Without this, Lightning takes an epoch that ``max_steps`` cut short for a finished one and drops the rest of its
    batches; where the resumed run has a ``max_steps`` itself, it trains a finished epoch a second time; and where the
    checkpoint was saved because of an exception, Ctrl-C included, it drops the batch that was being trained on.

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
    fit_loop = trainer.fit_loop
    epoch: Any = fit_loop.epoch_progress  # Lightning's annotation lacks `processed`
    batch: Any = fit_loop.epoch_loop.batch_progress
    if not epoch.total.ready:
        rank_zero_warn(
            "The training batches were asked for before Lightning restored its progress from the checkpoint, as"
            " `estimated_stepping_batches` in `configure_optimizers` does: if the run was stopped in the middle of an"
            " epoch, that epoch starts anew. Compute the number of steps in another way to go on where it stopped."
        )
        return
    for state in loader_states(trainer):
        if "position" in state and "batches" in state:  # a ResumableLoader's
            state["position"] = (state["position"] - batch.current.ready + batch.current.processed) % state["batches"]
    if epoch.current.processed == epoch.current.ready and batch.current.ready and not batch.is_last_batch:
        for count in (epoch.total, epoch.current):
            count.processed -= 1
            count.completed = count.processed
    enter_epoch(trainer, in_the_middle=epoch.current.processed < epoch.current.ready)
