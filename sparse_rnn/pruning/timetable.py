"""When something happens during training: moments and intervals in steps, or in shares of the training.

Wherever a number of steps is asked for, an integer is just that, and a float a share of the whole training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from typing import ClassVar, TypeVar

from sparse_rnn.checks import is_whole
from sparse_rnn.errors import UsageError

Steps = int | float
# An epoch of a loader without a length ends where the data do, and nobody knows when.
WAYS_TO_END = "max_steps, or max_epochs (and limit_train_batches where the training loader has no length)"
Some = TypeVar("Some", bound="Timetable")


@dataclass(frozen=True)
class Timetable(ABC):
    """When something happens during training."""

    # The fields that are numbers of steps; they must not fall from one to the next.
    moments: ClassVar[tuple[str, ...]] = ()
    intervals: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name in self.moments + self.intervals:
            check_steps(name, getattr(self, name), least=0 if name in self.moments else 1)
        for first, second in pairwise(self.moments):
            before, after = getattr(self, first), getattr(self, second)
            if is_whole(before) == is_whole(after) and before > after:
                raise UsageError(f"{first}={before} lies after {second}={after}: give them in the order of time.")

    def over(self: Some, total: float) -> Some:
        """Return the same in whole steps.

        Args:
            total: Number of steps of the whole training, infinite if it has no end.

        Raises:
            UsageError: If a share is given of a training without end, or the steps are not in the order of time.
        """
        steps = {name: in_steps(name, getattr(self, name), total) for name in self.moments}
        steps |= {name: max(1, in_steps(name, getattr(self, name), total)) for name in self.intervals}
        return replace(self, **steps)

    @abstractmethod
    def updates_at(self, step: int) -> bool:
        """Tell whether the masks may change when ``step`` steps are over."""

    @abstractmethod
    def share(self, step: int, final: float = 1.0) -> float:
        """Return how far the update at a step goes, from 0 to 1; of what, the schedule says.

        Args:
            step: Number of steps that are over, all moments of the schedule being in steps too (see :meth:`over`).
            final: Share of the weights that are removed in the end, above 0.
        """

    def end_for(self, final: float) -> int | None:
        """Return the step after which the final sparsity is reached; None where the sparsity is not scheduled."""
        return None

    def gap(self) -> str | None:
        """Say which updates an interval is too long for, all of it being in steps; None where it is not."""
        return None


def in_steps(name: str, value: Steps, total: float) -> int:
    """Convert a number of steps, or a share of the training, to a number of steps.

    Args:
        name: What to call it in a message.
        value: An integer number of steps, or a float share of all of them.
        total: Number of steps of the whole training, infinite if it has no end.

    Raises:
        UsageError: If a share is given of a training without end.

    Example:
        >>> in_steps("begin", 0.25, total=1000), in_steps("begin", 250, total=1000)
        (250, 250)
    """
    if is_whole(value):
        return int(value)
    if total == inf:
        raise UsageError(
            f"{name}={value} is a share of the training, which has no end that is known: give a whole number of steps, "
            f"or the trainer {WAYS_TO_END}."
        )
    return round(value * total)


def check_steps(name: str, value: Steps, least: int = 0) -> None:
    """Refuse what is neither a whole number of steps nor a share of the training with a UsageError."""
    steps, share = is_whole(value) and value >= least, isinstance(value, float) and 0 <= value <= 1
    if not (steps or share):
        raise UsageError(
            f"{name}={value!r}: give a whole number of steps, at least {least}, or a share of the training from 0.0 to "
            "1.0."
        )
