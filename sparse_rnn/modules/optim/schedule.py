"""Learning rates that fall to 0 over the whole training."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import cos, inf, pi
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sparse_rnn.checks import check_whole
from sparse_rnn.errors import UsageError


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

    def set_rates(self) -> None:
        """Set the learning rates of the next step, by the length that the training has now."""
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

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
