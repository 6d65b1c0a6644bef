"""Checkpoints that are there whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer

from sparse_rnn.paths import is_address
from sparse_rnn.python_numbers import python_numbers
from sparse_rnn.writing import written_whole


class WholeFiles(TorchCheckpointIO):
    """Lightning's way to write a checkpoint, with local files written beside their places and moved there.

    Lightning writes to the system's folder of temporary files. Where that is another file system, moving is copying: a
    process that is killed meanwhile leaves half a checkpoint in the place of the last one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save a checkpoint; an earlier one stays until this one is on the disk.

        Args:
            checkpoint: What to save.
            path: Its place; what is no local path is left to Lightning.
            storage_options: As for Lightning, which takes none.

        Raises:
            UsageError: If the file cannot be written, as on a full disk.
        """
        if storage_options is not None or is_address(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(python_numbers(checkpoint), content)
        with written_whole(Path(path)) as unfinished:
            unfinished.write_bytes(content.getbuffer())


def write_whole(trainer: Trainer) -> None:
    """Let a trainer write its checkpoints so, unless it has another way than Lightning's own.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from sparse_rnn.callbacks.whole_files import write_whole
        >>> trainer = Trainer(accelerator="cpu", logger=False, barebones=True)
        >>> write_whole(trainer)
        >>> type(trainer.strategy.checkpoint_io).__name__
        'WholeFiles'
    """
    # Known by its name: Lightning's classes exist twice.
    if type(trainer.strategy.checkpoint_io).__name__ == "TorchCheckpointIO":
        trainer.strategy.checkpoint_io = WholeFiles()
