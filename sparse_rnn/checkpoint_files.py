"""Reads Lightning's checkpoints as they lie in their files."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from sparse_rnn.errors import MissingFileError, UsageError, one_line


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load what a checkpoint holds, on the CPU; none of its code is run.

    Args:
        path: A file that Lightning saved.

    Returns:
        Lightning's dictionary: ``state_dict``, ``epoch``, ``callbacks``, ....

    Raises:
        MissingFileError: If there is no such file.
        UsageError: If it is no checkpoint of Lightning.

    Example:
        >>> import torch
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"weight": torch.ones(2)}}, Path(folder, "last.ckpt"))
        ...     load_checkpoint(Path(folder, "last.ckpt"))["state_dict"]["weight"].clone()
        tensor([1., 1.])
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"There is no checkpoint {path}.")
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is no checkpoint: torch.save did not write it, or not to its end.")
    try:
        # Mapped, not read: the weights of many large models need not fit in memory, nor the optimizers' states.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise UsageError(
            f"{path} is no checkpoint that PyTorch reads with weights_only=True: {one_line(str(error))[:200]}"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UsageError(f"{path} is no checkpoint of Lightning: it has no state_dict.")
    return checkpoint
