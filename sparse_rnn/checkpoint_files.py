"""Reads Lightning's checkpoints from disk."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from sparse_rnn.cli.arguments import one_line


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU; none of its code is run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint of Lightning.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no checkpoint: torch.save did not write it, or not to its end.")
    try:
        # Mapped, not read: the weights of many large models need not fit in memory, nor the optimizers' states.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(
            f"{path} is no checkpoint that PyTorch reads with weights_only=True: {one_line(str(error))[:200]}"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is no checkpoint of Lightning: it has no state_dict.")
    return checkpoint
