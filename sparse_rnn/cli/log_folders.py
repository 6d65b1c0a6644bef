"""Folders of a run's loggers: no other process takes the same, and a run that is refused leaves none behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from sparse_rnn.lightning_compat import claim_version
from sparse_rnn.paths import is_address

_OF_A_START = ("config.yaml", "hparams.yaml", "metrics.csv")


def take_folders(trainer: Trainer) -> list[Path]:
    """Take the folders of this machine that the loggers of a trainer will write to, of which none is there yet.

    Those with numbers are made at once, on the first rank, as processes that begin at once would count to the same.

    Args:
        trainer: A trainer that has not run yet.
    """
    first = getattr(rank_zero_only, "rank", 0) == 0  # set where Lightning sees it, and a type checker does not
    taken = [Path(folder) for logger in trainer.loggers if first and (folder := claim_version(logger))]
    named = [getattr(logger, "log_dir", None) for logger in trainer.loggers]
    here = [Path(folder) for folder in named if isinstance(folder, (str, Path)) and not is_address(folder)]
    return [*taken, *(folder for folder in here if not folder.exists())]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders that nothing was put into."""
    for folder in folders:
        with suppress(OSError):  # it is in use, or not there
            os.rmdir(folder)


def take_back(trainer: Trainer, folders: Iterable[Path]) -> None:
    """Remove the folders of a run that was refused, with what loggers put there before the first step.

    Args:
        trainer: The trainer.
        folders: What :func:`take_folders` has given.
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
            remove_empty([folder.parent])
