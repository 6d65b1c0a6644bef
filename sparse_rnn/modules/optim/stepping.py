"""When a scheduler of learning rates is stepped."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, Literal

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from sparse_rnn.errors import check_choice
from sparse_rnn.modules.optim.schedule import Decay
from sparse_rnn.modules.optim.settings import settings_of
from sparse_rnn.training_length import first_epoch, training_steps

Interval = Literal["epoch", "step"]


def with_scheduler(
    module: LightningModule,
    optimizer: Optimizer,
    lr_scheduler: LRSchedulerCallable | None,
    interval: Interval,
    monitor: str,
) -> OptimizerLRScheduler:
    """Return what a module's ``configure_optimizers`` is to return.

    A :class:`Decay` is stepped after each step, over the length of the training where it has no other; within a
    ``SequentialLR`` over the part of the training that is its own. A ``ReduceLROnPlateau`` is stepped after each epoch
    that ends with a validation.

    Args:
        module: The module.
        optimizer: Its optimizer.
        lr_scheduler: Function from the optimizer to a scheduler; None for none.
        interval: After what other schedulers are stepped, each ``epoch`` or each ``step``.
        monitor: The metric that a ``ReduceLROnPlateau`` follows which names none itself, as Lightning's does.

    Raises:
        UsageError: If the interval is unknown or the scheduler refuses its settings.
    """
    check_choice("lr_interval", interval, Interval)
    if lr_scheduler is None:
        return optimizer
    with settings_of("The learning rate scheduler"):
        scheduler = lr_scheduler(optimizer)
    frequency = 1
    for decay, first, last in _decays(scheduler, 0, None):
        interval = "step"
        decay.count_steps = partial(_length, module, first, last)
    if isinstance(scheduler, ReduceLROnPlateau):
        interval, monitor = "epoch", getattr(scheduler, "monitor", monitor)
        with suppress(RuntimeError):  # without a trainer, as in a loop of somebody's own
            frequency = module.trainer.check_val_every_n_epoch or 1
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": interval, "frequency": frequency, "monitor": monitor},
    }


def _decays(scheduler: Any, first: int, last: int | None) -> Iterator[tuple[Decay, int, int | None]]:
    """Find the decays in a scheduler, and the steps that each begins and ends with, None for the end of training."""
    if isinstance(scheduler, Decay):
        yield scheduler, first, last
    parts = vars(scheduler).get("_schedulers", ())
    milestones = vars(scheduler).get("_milestones")
    edges = [first] * len(parts) if milestones is None else [first, *(first + step for step in milestones)]
    ends = [last] * len(parts) if milestones is None else [*edges[1:], last]
    for part, begin, end in zip(parts, edges, ends, strict=True):
        yield from _decays(part, begin, end)


def _length(module: LightningModule, first: int, last: int | None) -> float:
    return (training_steps(module.trainer) if last is None else last) - first


def begin_stepping(module: LightningModule) -> None:
    """Look at the schedulers when training starts.

    A :class:`Decay` of a run that was resumed to be longer, or shorter, has the rate of its next step in the state that
    was loaded, by the length of before; it is set by the new one. Schedulers that wait for the end of an epoch which
    the training does not reach are warned of.

    Args:
        module: The module, whose ``configure_optimizers`` has returned what :func:`with_scheduler` gave.
    """
    trainer = module.trainer
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, Decay) and config.scheduler.last_epoch:
            config.scheduler.set_rates()
    steps, epoch = training_steps(trainer), first_epoch(trainer)
    if not steps < epoch < inf:
        return
    for config in trainer.lr_scheduler_configs:
        if config.interval == "epoch":
            by_step = not isinstance(config.scheduler, ReduceLROnPlateau)
            rank_zero_warn(
                f"{type(config.scheduler).__name__} is stepped after each epoch, but the training ends after "
                f"{steps:,} steps and its first epoch has {epoch:,}: the learning rate never changes. "
                f"Give {'lr_interval=step, or ' if by_step else ''}LinearDecay or CosineAnnealing."
            )
