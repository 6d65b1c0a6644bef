"""Lightning without its advice: of workers, devices and epochs, where nothing can or should be done about it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer

from sparse_rnn.devices import own_accelerator

# Lightning is installed under two names, and what is told goes by the one that was imported last.
LOGGERS = [logging.getLogger(f"{name}.utilities.rank_zero") for name in ("lightning.pytorch", "pytorch_lightning")]


def ignore_advice() -> None:
    """Ignore from now on the warnings that a user can or should do nothing about.

    They are of workers for data that sits in memory, and of what Lightning itself calls.

    Example:
        >>> with warnings.catch_warnings(record=True) as told:
        ...     ignore_advice()
        ...     warnings.warn("The 'train_dataloader' does not have many workers")
        >>> told
        []
    """
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".isinstance.treespec, LeafSpec", category=FutureWarning)


@contextmanager
def quiet_trainer(**options: Any) -> Iterator[Trainer]:
    """Give a trainer that leaves nothing behind and keeps to itself what is no warning of the model or its data.

    Args:
        **options: What a ``Trainer`` takes, over one device, and no logger, checkpoints, progress bar and summary.

    Example:
        >>> with quiet_trainer(max_epochs=0) as trainer:
        ...     trainer.loggers, trainer.checkpoint_callbacks
        ([], [])
    """
    levels = [logger.level for logger in LOGGERS]
    plain: dict[str, Any] = {
        "accelerator": own_accelerator(),
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with warnings.catch_warnings():
        ignore_advice()
        try:
            for logger in LOGGERS:
                logger.setLevel(logging.WARNING)
            yield Trainer(**(plain | options))
        finally:
            for logger, level in zip(LOGGERS, levels, strict=True):
                logger.setLevel(level)
