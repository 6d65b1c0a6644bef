"""How many threads a fit on the CPU takes."""

from __future__ import annotations

import os

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.nn.parameter import is_lazy

SMALL = 100_000  # parameters
CHOSEN_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def take_one_for_small(trainer: Trainer, model: LightningModule) -> None:
    """Take one thread for a small network on the CPU, unless the user has chosen: to share out its steps costs more.

    Args:
        trainer: The trainer.
        model: The network.
    """
    size = sum(SMALL if is_lazy(parameter) else parameter.numel() for parameter in model.parameters())
    chosen = any(name in os.environ for name in CHOSEN_BY)
    if chosen or size >= SMALL or torch.get_num_threads() == 1 or not isinstance(trainer.accelerator, CPUAccelerator):
        return
    rank_zero_info(f"One thread, as more are slower for {size:,} parameters: OMP_NUM_THREADS says how many otherwise.")
    torch.set_num_threads(1)
