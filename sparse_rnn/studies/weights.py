"""Hands the weights of one fit on to others: callbacks for the command lines of a study."""

from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from sparse_rnn.errors import MissingFileError
from sparse_rnn.lightning_compat import validate_now
from sparse_rnn.writing import written_whole


class KeepWeights(Callback):
    """Writes the weights that a fit ends with.

    Args:
        path: File to write.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file, whole or not at all."""
        with written_whole(self.path) as unfinished:
            torch.save(pl_module.state_dict(), unfinished)


class StartFrom(Callback):
    """Starts a fit from the weights of another, and validates before the first step: what pruning them alone does.

    The optimizer is a new one. The weights are there before a pruning callback that comes later in the trainer's list
    looks at them. A fit that goes on from a checkpoint has started long ago: it gets neither.

    Args:
        path: File that :class:`KeepWeights` has written.

    Raises:
        MissingFileError: If there is no such file, when a fit starts.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the weights."""
        if trainer.ckpt_path is not None:
            return
        if not self.path.is_file():
            raise MissingFileError(f"There are no weights {self.path} to start from.")
        pl_module.load_state_dict(torch.load(self.path, map_location="cpu", weights_only=True))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate."""
        if trainer.ckpt_path is None:
            validate_now(trainer)
