"""What a device cannot do that all trainings here need."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import MPSAccelerator

from sparse_rnn.errors import UsageError

NO_MPS = "Apple's MPS has no float64, which metrics, sampled softmax and pruning need"


def own_accelerator() -> str:
    """Name what trainers compute on where nobody says: the best that there is, but for Apple's MPS.

    Example:
        >>> own_accelerator() in ("auto", "cpu")
        True
    """
    return "cpu" if MPSAccelerator.is_available() else "auto"


def refuse_mps(trainer: Trainer) -> None:
    """Refuse a trainer on Apple's MPS, before anything is moved there.

    Lightning's ``accelerator="auto"`` takes MPS on a Mac; ``python -m sparse_rnn`` takes the CPU in its place.

    Args:
        trainer: The trainer.

    Raises:
        UsageError: If it computes on MPS.

    Example:
        >>> refuse_mps(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
    """
    if trainer.strategy.root_device.type == "mps":
        raise UsageError(f"{NO_MPS}: take accelerator='cpu', on the command line --trainer.accelerator cpu.")
