"""How many threads a fit on the CPU takes."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.nn.parameter import is_lazy

from sparse_rnn.process_settings import one_thread

SMALL = 100_000  # parameters
CHOSEN_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def threads_for(trainer: Trainer, model: LightningModule) -> AbstractContextManager[None]:
    """Take one thread for a small network on the CPU, unless the user has chosen: to share out its steps costs more.

    Args:
        trainer: The trainer.
        model: The network.

    Returns:
        What the fit runs in.
    """
    size = sum(SMALL if is_lazy(parameter) else parameter.numel() for parameter in model.parameters())
    chosen = any(name in os.environ for name in CHOSEN_BY)
    if chosen or size >= SMALL or torch.get_num_threads() == 1 or not isinstance(trainer.accelerator, CPUAccelerator):
        return nullcontext()
    rank_zero_info(f"One thread, as more are slower for {size:,} parameters: OMP_NUM_THREADS says how many otherwise.")
    return one_thread()
