"""Tells a project whose best checkpoint is denser than the model that its training ended with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from sparse_rnn.lightning_compat import callbacks_of
from sparse_rnn.sparsity.masks import Masks


class BestModels:
    """Remembers how sparse the model was whenever a callback that monitors a metric found it the best so far.

    A best model is noticed after it is saved: masks change after a batch, so it is enough to look before they do.

    Attributes:
        seen: Score, step and sparsity by the path of the checkpoint; numbers, to be saved and resumed with.
    """

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = {}

    def look(self, trainer: Trainer, step: int, masks: Masks) -> None:
        """Note the best models that are new; called while the masks are still those that they were saved with.

        Args:
            trainer: The trainer.
            step: Number of training steps so far.
            masks: The weights that are kept.
        """
        for checkpoint in monitored(trainer):
            path, score = str(checkpoint.best_model_path), score_of(checkpoint)
            # The score tells a new model under an old name.
            if path not in self.seen or self.seen[path][0] != score:
                self.seen[path] = [score, step, masks.sparsity]

    def warn(self, trainer: Trainer, masks: Masks) -> None:
        """Warn of the best models that are denser than the masks, at the end of training."""
        for checkpoint in monitored(trainer):
            _, step, sparsity = self.seen[str(checkpoint.best_model_path)]
            if sparsity < masks.sparsity:
                rank_zero_warn(
                    f"The best checkpoint of {type(checkpoint).__name__}(monitor={checkpoint.monitor!r}), "
                    f"best_model_path, is from step {step:,}, when the sparsity was {sparsity:.4g}; in the end it is "
                    f"{masks.sparsity:.4g}. Take the last checkpoint, or sparse_rnn.SparseCheckpoint in place of "
                    f"{type(checkpoint).__name__}: there a model counts once the final sparsity holds."
                )


def monitored(trainer: Trainer) -> Iterator[Any]:
    """Yield the callbacks that keep a best model, known by what they offer: Lightning's classes exist twice."""
    for callback in callbacks_of(trainer):
        if getattr(callback, "monitor", None) is not None and getattr(callback, "best_model_path", None):
            yield callback


def score_of(checkpoint: Any) -> float:
    """Return the metric of the best model of a callback that :func:`monitored` has found."""
    score = getattr(checkpoint, "best_model_score", None)
    return 0.0 if score is None else float(score)
