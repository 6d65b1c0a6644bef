"""A ModelCheckpoint for pruned models: its best is as sparse as asked for, and its last is the last."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from weakref import proxy

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from sparse_rnn.callbacks.whole_files import WholeFiles, write_whole
from sparse_rnn.calls import as_called
from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.checks import check_whole
from sparse_rnn.errors import UsageError
from sparse_rnn.lightning_compat import callbacks_of, join_other_name
from sparse_rnn.paths import check_served

_OTHER = "pytorch_lightning.callbacks.Checkpoint"


class SparseCheckpoint(ModelCheckpoint):
    """Keep the best of the models that are as sparse as asked for, and the last one.

    Lightning's ModelCheckpoint with two differences. A model counts as a best one only once every pruning callback of
    the trainer has reached its final sparsity: while weights are still being removed, denser models may well validate
    better. And ``last.ckpt`` is the model as it is when training ends, whatever ended it; Lightning's is, since 2.6.0,
    that of the last time a best one was found. It is written after every validation and epoch, whenever the steps or
    the interval say so, at the end, on Ctrl-C and on any other exception. With more than one process it is not written
    on an exception, Ctrl-C included: one rank would wait for another that may never come.

    Where the last model is a best one that is saved at the same time, both names lead to one file, which is written
    once (a hard link: whichever name is removed, the other one stays). It is written twice where there are no such
    links, as in remote folders, where another ``CheckpointIO`` than Lightning's writes, or where ``filename`` has no
    ``{step}``, so that a name may be used again.

    In the epoch in which the final sparsity is reached, an average metric of training is partly that of denser models.

    Args:
        dirpath: Folder of the checkpoints; null for ``checkpoints`` in the folder of the run's logs.
        filename: Name of the best checkpoints, such as ``{epoch}-{step}``.
        save_last: Whether to keep the last model.
        every_n_train_steps: Look for a best model, and save the last, every so many steps instead of every epoch.
        train_time_interval: The same, but whenever so much time has passed.
        enable_version_counter: Whether to number files whose names are taken, instead of overwriting them.
        options: What else ModelCheckpoint takes: ``monitor``, ``mode``, ``save_top_k``, ....

    Example:
        >>> checkpoint = SparseCheckpoint(monitor="val/loss", save_top_k=2)
        >>> checkpoint.monitor, checkpoint.mode
        ('val/loss', 'min')
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        *,
        save_last: bool = True,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        enable_version_counter: bool = True,
        **options: Any,
    ) -> None:
        # Not in __new__, whose arguments the command line would take for those of the class.
        join_other_name(SparseCheckpoint, _OTHER)
        check_whole("every_n_train_steps", every_n_train_steps, optional=True)
        check_served("dirpath", dirpath)
        super().__init__(
            dirpath,
            filename,
            save_last=None,  # when Lightning saves it depends on the version, and is not always the last
            every_n_train_steps=every_n_train_steps,
            train_time_interval=train_time_interval,
            enable_version_counter=enable_version_counter,
            **options,
        )
        self._keeps_last = save_last
        self._numbered = enable_version_counter
        self._every = every_n_train_steps
        self._interval = train_time_interval
        self._names_step = filename is None or "{step" in filename
        self._saved_step: int | None = None  # while no training is under way
        self._saved_time = 0.0

    def __repr__(self) -> str:
        known = vars(self) | {"save_last": self._keeps_last, "every_n_train_steps": self._every or None}
        return as_called(type(self), known | {"train_time_interval": self._interval})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let checkpoints be written whole."""
        super().setup(trainer, pl_module, stage)
        write_whole(trainer)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Tell whether a model is among the best; none is before the final sparsity holds."""
        return _is_final(trainer) and super().check_monitor_top_k(trainer, current)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to wait for the first step: until then there is nothing to save."""
        super().on_train_start(trainer, pl_module)
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where the steps or the interval say so."""
        known = self._begin(trainer) if self._every or self._interval is not None else set()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._is_due(trainer):
            self._save(trainer, self._best() - known)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after a validation in mid-epoch; the end of the epoch follows others at once."""
        known = self._begin(trainer)
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == TrainerFn.FITTING and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer, self._best() - known)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after every epoch, one that is cut short included."""
        known = self._begin(trainer)
        super().on_train_epoch_end(trainer, pl_module)
        self._save(trainer, self._best() - known)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what no epoch's end has, and warn where no model was ever as sparse as asked for.

        Other callbacks may have changed the model since, as stochastic weight averaging does in the end.
        """
        super().on_train_end(trainer, pl_module)
        same = self._saved_step == trainer.global_step and self._holds(pl_module)
        if not trainer.strategy.broadcast(same):
            self._save(trainer)
        self._saved_step = None
        if self.monitor is not None and not self.best_model_path and not _is_final(trainer):
            rank_zero_warn(
                f"{type(self).__name__}(monitor={self.monitor!r}) has no best checkpoint, as the final sparsity was "
                f"not reached. {self._whereabouts()}"
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the steps since the last time, whatever is about to end the training."""
        super().on_exception(trainer, pl_module, exception)
        if trainer.world_size == 1 and self._saved_step not in (None, trainer.global_step):
            try:
                self._save(trainer)
            except Exception as problem:  # the exception at hand matters more: the disk may be full, or the GPU lost
                rank_zero_warn(f"The last model could not be saved: {type(problem).__name__}: {problem}")
            else:
                rank_zero_info(f"{type(exception).__name__} after step {trainer.global_step:,}. {self._whereabouts()}")
        self._saved_step = None

    def _is_due(self, trainer: Trainer) -> bool:
        if self._saved_step == trainer.global_step:  # a batch that only accumulates
            return False
        if self._every and trainer.global_step % self._every == 0:
            return True
        if self._interval is None:
            return False
        # Clocks of ranks differ, and all of them must save.
        return trainer.strategy.broadcast(time.monotonic() - self._saved_time >= self._interval.total_seconds())

    def _holds(self, pl_module: LightningModule) -> bool:
        """Tell whether the last checkpoint holds the weights in memory; one that cannot be read here is trusted."""
        try:
            saved = load_checkpoint(self.last_model_path)["state_dict"]
        except UsageError:
            return True
        return all(name in saved and saved[name].equal(value.cpu()) for name, value in pl_module.state_dict().items())

    def _begin(self, trainer: Trainer) -> set[str]:
        """Name the last checkpoint, which is part of what is saved, of a best one too, and list the best so far."""
        if self._saves_last(trainer):
            self.last_model_path = self._path(trainer)
        return self._best()

    def _best(self) -> set[str]:
        """List the files of the best models."""
        return {*self.best_k_models, self.best_model_path} - {""}

    def _saves_last(self, trainer: Trainer) -> bool:
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        # Lightning sets it from another class, where mypy does not see it.
        return self._keeps_last and fitting and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def _save(self, trainer: Trainer, same: Collection[str] = ()) -> None:
        """Keep the model as it is as ``last.ckpt``: a link to a file that has just been written of it, or a new file.

        Args:
            trainer: The trainer.
            same: Files that hold the model as it is, but for what is written only now.
        """
        if not self._saves_last(trainer):
            return
        self.last_model_path = self._path(trainer)
        if not self._linked(trainer, same):
            if trainer.is_global_zero and not isinstance(trainer.strategy.checkpoint_io, WholeFiles):
                _unlink(self.last_model_path)
            trainer.save_checkpoint(self.last_model_path, self.save_weights_only)
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    def _linked(self, trainer: Trainer, same: Collection[str]) -> bool:
        """Let the last checkpoint be another name of one of these files, if that is possible; alike on all ranks."""
        if not same or not self._names_step or not _written_at_once(trainer):
            return False
        linked = trainer.is_global_zero and _link(min(same), self.last_model_path)
        return trainer.strategy.broadcast(linked)

    def _path(self, trainer: Trainer) -> str:
        """Name the file of this run, beside those that other runs have left in the folder."""
        if self.last_model_path and Path(self.last_model_path).parent == Path(str(self.dirpath)):
            return self.last_model_path
        path, version = self.format_checkpoint_name({}, self.CHECKPOINT_NAME_LAST), 0
        while self._numbered and self.file_exists(path, trainer):
            version += 1
            path = self.format_checkpoint_name({}, self.CHECKPOINT_NAME_LAST, version)
        return path

    def _whereabouts(self) -> str:
        return f"The last model is in {self.last_model_path}." if self._keeps_last else "The last model is not kept."


def _is_final(trainer: Trainer) -> bool:
    return all(getattr(callback, "is_final", True) for callback in callbacks_of(trainer))


def _written_at_once(trainer: Trainer) -> bool:
    """Tell whether a checkpoint is a file that is complete when its saving returns, as Lightning's own is."""
    # Known by its name: Lightning's classes exist twice.
    return type(trainer.strategy.checkpoint_io).__name__ in ("TorchCheckpointIO", "WholeFiles", "SafeCheckpointIO")


def _link(source: str, name: str) -> bool:
    """Make a file known by a second name, in place of what has that name; tell whether that was possible."""
    unfinished = f"{name}.link"
    with suppress(OSError):
        os.unlink(unfinished)  # of a run that was killed
    try:
        os.link(source, unfinished)
        os.replace(unfinished, name)
    except (OSError, NotImplementedError):  # a file system, or a platform, without such links
        return False
    return True


def _unlink(name: str) -> None:
    """Take a name from a file that has another one, which would be overwritten, too."""
    with suppress(OSError):  # there is none, or not on this machine
        if os.stat(name).st_nlink > 1:
            os.unlink(name)


join_other_name(SparseCheckpoint, _OTHER)  # for pytorch_lightning's command line
