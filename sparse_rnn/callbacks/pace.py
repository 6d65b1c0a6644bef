"""How many steps a training has, as far as its steps so far tell."""

from __future__ import annotations

from math import inf
from typing import Any

from lightning.pytorch import Trainer

from sparse_rnn.lightning_compat import callbacks_of
from sparse_rnn.training_length import training_steps

# Estimates that differ by this share of the training are as good as equal.
CLOSE = 0.02


class Pace:
    """Estimates how many steps a training has while it is under way, from the steps that it has made.

    Args:
        trainer: The trainer, whose training starts now.
        step: Number of steps made before, in an earlier fit or in the one that is resumed.

    Attributes:
        total: Number of steps of the whole training; infinite without an end, None where only time ends it and it is
            too early to tell.
    """

    def __init__(self, trainer: Trainer, step: int) -> None:
        self._others = 0 if batches_seen(trainer) else step  # steps of an earlier fit, by another trainer
        self._begin = step
        self._clock: tuple[float, int] | None = None
        self.total = self._estimate(trainer, step)

    def update(self, trainer: Trainer, step: int) -> bool:
        """Look again after a step; tell whether the total is another one.

        What differs by little waits for the end of the training: schedules are to stay as they are while they can.
        """
        total, before = self._estimate(trainer, step), self.total
        if total is None or total == before:
            return False
        if before is not None and abs(total - before) <= CLOSE * before and step < (1 - 2 * CLOSE) * before:
            return False
        self.total = total
        return True

    def _estimate(self, trainer: Trainer, step: int) -> float | None:
        total = training_steps(trainer, step - self._others, batches_seen(trainer))
        timer = _timer(trainer)
        if total < inf or timer is None:
            return total
        # Clocks of ranks differ. Lightning's Timer asks the first rank after each batch, too.
        return trainer.strategy.broadcast(self._by_time(timer, step))

    def _by_time(self, timer: Any, step: int) -> float | None:
        """Share the time that is left out among steps; the first one may be slow, and is not counted."""
        elapsed, left = timer.time_elapsed(), timer.time_remaining()
        if self._clock is None:
            self._clock = (elapsed, step) if step > self._begin else None
            return None
        since, first = self._clock
        return step + max(0, int(left * (step - first) / max(elapsed - since, 1e-9)))


def batches_seen(trainer: Trainer) -> int:
    """Count the batches of a fit that have been trained on, those before it was resumed included."""
    return trainer.fit_loop.epoch_loop.total_batch_idx + 1


def _timer(trainer: Trainer) -> Any:
    """Find the callback that ends the training after some time; None without one."""
    for callback in callbacks_of(trainer):
        # Known by what it does: Lightning's classes exist twice.
        if hasattr(callback, "time_remaining") and callback.time_remaining() is not None:
            return callback
    return None
