"""How the command line's trainers take up a checkpoint: nothing in it is run, and what does not fit is said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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
from sparse_rnn.paths import is_address

_AVERAGING = "StochasticWeightAveraging"  # puts a scheduler of its own in the place of the run's
_OF_A_START = ("config.yaml", "hparams.yaml", "metrics.csv")


class DoesNotFitError(UsageError):
    """A checkpoint cannot be restored: nothing was trained, although the trainer may count its steps already."""


class SafeCheckpointIO(WholeFiles):
    """Writes files whole, and reads them without running what they hold, wherever they lie and whatever version it is.

    Example:
        >>> SafeCheckpointIO().load_checkpoint("nowhere.ckpt")
        Traceback (most recent call last):
        sparse_rnn.errors.MissingFileError: There is no checkpoint nowhere.ckpt.
    """

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a checkpoint; what is asked about ``weights_only`` changes nothing."""
        return load_checkpoint(path, mapped=False)


def restore_safely(trainer: Trainer) -> None:
    """Let a trainer read checkpoints safely, and refuse in a sentence what it cannot go on with.

    A ``CheckpointIO`` that reads in its own way stays; Lightning's ``AsyncCheckpointIO`` has none of its own.

    Args:
        trainer: The trainer.
    """
    io = trainer.strategy.checkpoint_io
    if type(io).__name__ in ("TorchCheckpointIO", "WholeFiles"):
        trainer.strategy.checkpoint_io = SafeCheckpointIO()
    elif type(io).load_checkpoint.__module__.partition(".")[0] in ("lightning", "pytorch_lightning"):
        # What wraps another gets a new one of Lightning's whenever it is asked for: that cannot be replaced for long.
        vars(io)["load_checkpoint"] = SafeCheckpointIO().load_checkpoint
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


def new_log_folders(trainer: Trainer) -> list[Path]:
    """List the folders of this machine that the loggers of a trainer will make.

    Args:
        trainer: A trainer that has not run yet.
    """
    folders = [getattr(logger, "log_dir", None) for logger in trainer.loggers]
    here = [Path(folder) for folder in folders if isinstance(folder, (str, Path)) and not is_address(folder)]
    return [folder for folder in here if not folder.exists()]


def take_back(trainer: Trainer, folders: list[Path]) -> None:
    """Remove the folders of a run that was refused, with what loggers put there before the first step.

    Args:
        trainer: The trainer.
        folders: What :func:`new_log_folders` has listed.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        with suppress(Exception):  # its file is about to go
            logger.finalize("failed")
    for folder in folders:
        found = list(folder.rglob("*")) if folder.is_dir() else []
        if all(path.name.startswith("events.") or path.name in _OF_A_START for path in found):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # others are there
                folder.parent.rmdir()
