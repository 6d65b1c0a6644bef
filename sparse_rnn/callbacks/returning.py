"""The way back of a callback's state from the processes that Lightning starts for ``ddp_spawn`` and in notebooks.

They work on copies of the callback, and Lightning sends back weights and metrics but no callbacks. So the first of them
leaves the state in a file whose name the copies share with the original, which takes it from there.
"""

from __future__ import annotations

import io
import os
import tempfile
import uuid
import weakref
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from sparse_rnn.lightning_compat import launched_by_fit
from sparse_rnn.writing import written_whole


class Return:
    """A file through which a process that ``fit`` has started leaves the state of its copy to the original.

    Example:
        >>> Return().take() is None
        True

    Attributes:
        owner: The process of the original.
        path: The file.
    """

    def __init__(self, owner: int | None = None, path: Path | None = None) -> None:
        self.owner = owner or os.getpid()
        self.path = path or Path(tempfile.gettempdir()) / f"sparse_rnn-{uuid.uuid4().hex}.pt"
        weakref.finalize(self, _remove, self.path, self.owner)

    @classmethod
    def of(cls, owner: int, path: Path) -> Return:
        """Make that of a copy: in another process it leads to the original, in the same one the copy has its own."""
        return cls() if owner == os.getpid() else cls(owner, path)

    def leave(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Leave the state, in the first process of those that ``fit`` has started on this machine."""
        if os.getpid() != self.owner and trainer.local_rank == 0 and launched_by_fit(trainer):
            with written_whole(self.path) as unfinished:
                torch.save(state, unfinished)

    def take(self) -> dict[str, Any] | None:
        """Take, once, what was left; None where there is nothing."""
        if os.getpid() != self.owner or not self.path.exists():
            return None
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        self.path.unlink()
        return state


def to_bytes(state: dict[str, Any]) -> bytes:
    """Write tensors and primitives to bytes.

    Example:
        >>> from_bytes(to_bytes({"step": 3}))
        {'step': 3}
    """
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def from_bytes(data: bytes) -> dict[str, Any]:
    """Read what :func:`to_bytes` wrote."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        path.unlink(missing_ok=True)
