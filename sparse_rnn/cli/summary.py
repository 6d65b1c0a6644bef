"""What ``fit`` prints at its end."""

import shlex
import sys

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from sparse_rnn.callbacks.base import pruning_callbacks
from sparse_rnn.sparsity.statistics import statistics, table


def summary(trainer: Trainer) -> str:
    """Describe a finished fit: validation metrics, sparsity of each kernel and gate, checkpoints, logs.

    Args:
        trainer: The trainer after ``fit``.

    Returns:
        A text of several lines.
    """
    facts = {name: f"{value:.4g}" for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    for checkpoint in trainer.checkpoint_callbacks:
        facts["best checkpoint"] = getattr(checkpoint, "best_model_path", "")
        facts["last checkpoint"] = getattr(checkpoint, "last_model_path", "")
    facts["logs"] = str(trainer.log_dir)
    if isinstance(trainer.logger, TensorBoardLogger):
        facts["TensorBoard"] = shlex.join(
            [sys.executable, "-m", "tensorboard.main", "--logdir", trainer.logger.log_dir]
        )
    lines = [f"{name:<16} {value}" for name, value in facts.items() if value]
    return "\n\n".join([*_sparsity_tables(trainer), "\n".join(lines)])


def _sparsity_tables(trainer: Trainer) -> list[str]:
    return [table(statistics(callback.masks)) for callback in pruning_callbacks(trainer) if callback.masks is not None]
