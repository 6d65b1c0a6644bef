"""Learning rates that fall to 0 over the whole training, and when a scheduler is stepped."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import cos, inf, pi
from typing import Any, Literal

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from sparse_rnn.checks import check_whole
from sparse_rnn.errors import UsageError, check_choice
from sparse_rnn.modules.optim.settings import settings_of
from sparse_rnn.training_length import first_epoch, training_steps

Interval = Literal["epoch", "step"]


class Decay(LRScheduler, ABC):
    """Multiplies learning rates by a factor that falls from 1 to 0 over a training; it is stepped after each step.

    The rate of a step depends on its number and the number of all steps alone. That number is not part of the state: a
    run that is resumed to be longer than it was decays over its new length.

    Args:
        optimizer: The optimizer.
        total_steps: Number of steps of the whole training; null where the model gives it, as those of this package do.

    Raises:
        UsageError: If the number is below 1; at the first step, if it is not known.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int | None = None) -> None:
        check_whole("total_steps", total_steps, 1, wanted="the number of steps of the training", optional=True)
        self.total_steps: float | None = total_steps
        self.count_steps: Callable[[], float] = lambda: inf
        super().__init__(optimizer)

    @abstractmethod
    def factor(self, share: float) -> float:
        """Return the factor when a share of the training is over, from 0 to 1."""

    def get_lr(self) -> list[Any]:
        """Return the learning rate of every group for the next step."""
        # At step 0 nobody knows the length: asking Lightning for it sets the data up before a checkpoint is restored.
        factor = self.factor(min(1.0, self.last_epoch / self._total())) if self.last_epoch else 1.0
        return [factor * rate for rate in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the state: everything but the optimizer and the length of the training."""
        own = ("total_steps", "count_steps")
        return {name: value for name, value in super().state_dict().items() if name not in own}

    def _total(self) -> float:
        self.total_steps = self.total_steps or self.count_steps()
        if self.total_steps == inf:
            raise UsageError(
                f"{type(self).__name__} ends with the training, which has no end that is known: give the trainer "
                "max_steps or max_epochs, or the scheduler total_steps."
            )
        return self.total_steps


class LinearDecay(Decay):
    """Learning rates that fall to 0 in a straight line: 1 - t / T times the first after t steps.

    Args:
        optimizer: The optimizer.
        total_steps: T, the number of steps of the whole training; null where the model gives it, as those of this
            package do.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules import LinearDecay
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> scheduler = LinearDecay(optimizer, total_steps=4)
        >>> for _ in range(4):
        ...     optimizer.step()
        ...     scheduler.step()
        ...     print(scheduler.get_last_lr())
        [0.75]
        [0.5]
        [0.25]
        [0.0]
    """

    def factor(self, share: float) -> float:
        """Return 1 - t / T."""
        return 1 - share


class CosineAnnealing(Decay):
    """Learning rates that fall to 0 along half a cosine: (1 + cos(π·t / T)) / 2 times the first after t steps.

    Args:
        optimizer: The optimizer.
        total_steps: T, the number of steps of the whole training; null where the model gives it, as those of this
            package do.
    """

    def factor(self, share: float) -> float:
        """Return (1 + cos(π·t / T)) / 2."""
        return (1 + cos(pi * share)) / 2


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
