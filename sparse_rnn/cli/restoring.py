"""How the command line's trainers take up a checkpoint: nothing in it is run, and what does not fit is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sparse_rnn.callbacks.whole_files import WholeFiles
from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.cli.optimizer_states import check_states
from sparse_rnn.cli.scheduler_states import check_schedulers
from sparse_rnn.errors import UsageError, one_line
from sparse_rnn.lightning_compat import callbacks_of, restore_under

_AVERAGING = "StochasticWeightAveraging"  # puts a scheduler of its own in the place of the run's


class DoesNotFitError(UsageError):
    """A checkpoint cannot be restored: nothing was trained, although the trainer may count its steps already."""


class SafeCheckpointIO(WholeFiles):
    """Writes files whole, and reads them without running what they hold, wherever they lie and whatever version it is.

    Args:
        path: A checkpoint that has been read.
        content: What it holds, which is given out once, where that path is to be loaded.

    Example:
        >>> SafeCheckpointIO().load_checkpoint("nowhere.ckpt")
        Traceback (most recent call last):
        sparse_rnn.errors.MissingFileError: There is no checkpoint nowhere.ckpt.
    """

    def __init__(self, path: str | None = None, content: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._read = {} if path is None or content is None else {path: content}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_read": {}}  # processes that a fit starts read for themselves

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a checkpoint; what is asked about ``weights_only`` changes nothing."""
        content = self._read.pop(str(path), None)
        return load_checkpoint(path, mapped=False) if content is None else content


def restore_safely(trainer: Trainer, path: str | None = None, content: dict[str, Any] | None = None) -> None:
    """Let a trainer read checkpoints safely, and refuse in a sentence what it cannot go on with.

    A ``CheckpointIO`` that reads in its own way stays; Lightning's ``AsyncCheckpointIO`` has none of its own.

    Args:
        trainer: The trainer.
        path: A checkpoint that has been read, and is not to be read again.
        content: What it holds.
    """
    safe = SafeCheckpointIO(path, content)
    io = trainer.strategy.checkpoint_io
    if type(io).__name__ in ("TorchCheckpointIO", "WholeFiles"):
        trainer.strategy.checkpoint_io = safe
    elif type(io).load_checkpoint.__module__.partition(".")[0] in ("lightning", "pytorch_lightning"):
        # What wraps another gets a new one of Lightning's whenever it is asked for: that cannot be replaced for long.
        vars(io)["load_checkpoint"] = safe.load_checkpoint
    restore_under(trainer, _refused, _check_schedulers, _check_optimizers)


def _check_schedulers(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    averaging = any(kind.__name__ == _AVERAGING for found in callbacks_of(trainer) for kind in type(found).__mro__)
    if trainer.state.fn == TrainerFn.FITTING and not averaging:
        schedulers = [found.scheduler for found in trainer.lr_scheduler_configs]
        check_schedulers(trainer.ckpt_path, schedulers, checkpoint.get("lr_schedulers", ()))


def _check_optimizers(trainer: Trainer) -> None:
    names = {parameter: name for name, parameter in trainer.lightning_module.named_parameters()}
    check_states(trainer.ckpt_path, trainer.optimizers, names)


@contextmanager
def _refused(path: Any) -> Iterator[None]:
    """Say of whatever is raised in restoring that the checkpoint is at fault."""
    try:
        yield
    except UsageError as error:
        raise DoesNotFitError(str(error)) from error
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, MisconfigurationException) as error:
        reason = one_line(f"{type(error).__name__}: {error}")[:300]
        raise DoesNotFitError(f"{path} does not fit this run, which cannot be restored from it: {reason}") from error
