"""When a scheduler of learning rates is stepped."""

from math import inf
from typing import Literal

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

    A :class:`Decay` is stepped after each step, over the length of the training where it has no other, and a
    ``ReduceLROnPlateau`` after each epoch.

    Args:
        module: The module.
        optimizer: Its optimizer.
        lr_scheduler: Function from the optimizer to a scheduler; None for none.
        interval: After what other schedulers are stepped, each ``epoch`` or each ``step``.
        monitor: The metric that a ``ReduceLROnPlateau`` follows.

    Raises:
        UsageError: If the interval is unknown or the scheduler refuses its settings.
    """
    check_choice("lr_interval", interval, Interval)
    if lr_scheduler is None:
        return optimizer
    with settings_of("The learning rate scheduler"):
        scheduler = lr_scheduler(optimizer)
    if isinstance(scheduler, Decay):
        interval = "step"
        scheduler.count_steps = lambda: training_steps(module.trainer)
    elif isinstance(scheduler, ReduceLROnPlateau):
        interval = "epoch"
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": interval, "monitor": monitor},
    }


def warn_of_idle(module: LightningModule) -> None:
    """Warn, when training starts, of schedulers that wait for the end of an epoch which the training does not reach.

    Args:
        module: The module, whose ``configure_optimizers`` has returned what :func:`with_scheduler` gave.
    """
    trainer = module.trainer
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
