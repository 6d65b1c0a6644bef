"""Finds the pruning callbacks of a trainer, and the masks that they have."""

from __future__ import annotations

from lightning.pytorch import Trainer
from torch import Tensor

from sparse_rnn.callbacks.base import PruningCallback
from sparse_rnn.lightning_compat import callbacks_of
from sparse_rnn.sparsity.masks import joined


def pruning_callbacks(trainer: Trainer) -> list[PruningCallback]:
    """Return the pruning callbacks of a trainer."""
    return [callback for callback in callbacks_of(trainer) if isinstance(callback, PruningCallback)]


def current_masks(trainer: Trainer) -> dict[str, Tensor]:
    """Return the masks of all pruning callbacks of a trainer, as they are now; what several prune is what all keep."""
    return joined(callback.masks or {} for callback in pruning_callbacks(trainer))
