"""How many steps a training has: the one place that counts them.

A step is a batch after which an optimizer has stepped, be it one or several, once or more often.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Any

from lightning.pytorch import Trainer

from sparse_rnn.lightning_compat import callbacks_of


def training_steps(trainer: Trainer, steps: int = 0, batches: int = 0) -> float:
    """Count the training steps of a whole fit, those before it was resumed included; infinite without an end.

    In automatic optimisation that is known beforehand. In manual optimisation a batch may step never, or often, and
    Lightning's ``max_steps`` counts each step of each optimizer: what was seen so far is taken to go on. Before
    anything was seen, every batch is taken to step once with every optimizer.

    The batches of the fit must be set up. Lightning's own estimate takes one accumulation for all epochs, and a step of
    each optimizer for a step.

    Args:
        trainer: The trainer.
        steps: Number of steps that this training has made, 0 if that is not known.
        batches: Number of batches that it has seen meanwhile.
    """
    by_hand = not trainer.lightning_module.automatic_optimization
    seen = by_hand and steps > 0
    if trainer.max_steps < 0 or (seen and not trainer.global_step):  # what steps past Lightning, it does not count
        most: float = inf
    elif seen:
        most = ceil(trainer.max_steps * steps / trainer.global_step)
    else:
        most = ceil(trainer.max_steps / max(1, len(trainer.optimizers)))
    size, epochs = trainer.num_training_batches, trainer.max_epochs
    if epochs is None or epochs < 0 or size == inf:
        return most
    if seen and batches:
        return min(most, ceil(epochs * size * steps / batches))
    if _accumulation(trainer) is None:  # this is asked after every step, and there may be very many epochs
        return min(most, epochs * ceil(size / trainer.accumulate_grad_batches))
    return min(most, sum(ceil(size / _accumulated(trainer, epoch)) for epoch in range(epochs)))


def first_epoch(trainer: Trainer) -> float:
    """Count the steps of the first epoch of a fit in automatic optimisation; infinite where that is not known."""
    size = trainer.num_training_batches
    return size if size == inf else ceil(size / _accumulated(trainer, 0))


def _accumulated(trainer: Trainer, epoch: int) -> int:
    """Return the number of batches that make a step in an epoch."""
    accumulation = _accumulation(trainer)
    return trainer.accumulate_grad_batches if accumulation is None else accumulation.get_accumulate_grad_batches(epoch)


def _accumulation(trainer: Trainer) -> Any:
    """Find the callback that decides it for each epoch; None without one."""
    for callback in callbacks_of(trainer):
        if hasattr(callback, "get_accumulate_grad_batches"):  # known by what it does: Lightning's classes exist twice
            return callback
    return None
