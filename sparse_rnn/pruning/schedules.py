"""Schedules: when masks change during training, and how sparse they are then; pure functions of the step.

Wherever a schedule takes a number of steps, an integer is just that, and a float a share of the whole training.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi

from sparse_rnn.checks import check_number, items_of
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.timetable import Steps, Timetable


class Schedule(Timetable):
    """Sparsity as a function of the step, on the way to a final one."""

    @abstractmethod
    def sparsity(self, step: int, final: float) -> float:
        """Return the share of the weights that are removed when ``step`` steps are over.

        Args:
            step: Number of steps, all moments of the schedule being in steps too (see :meth:`over`).
            final: Share of the weights that are removed in the end.
        """

    def share(self, step: int, final: float = 1.0) -> float:
        """Return the share of the way from dense to the final sparsity; see :meth:`Timetable.share`."""
        return self.sparsity(step, final) / final if final else 1.0

    @abstractmethod
    def end_for(self, final: float) -> int:
        """Return the step after which the final sparsity is reached."""


@dataclass(frozen=True)
class Cubic(Schedule):
    """Fast while there is much to remove, slow towards the end (Zhu and Gupta 2017, arXiv 1710.01878, equation 1).

    s(t) = s_f + (s_i - s_f)·(1 - (t - t_0) / (t_1 - t_0))³ for t = t_0, t_0 + Δt, t_0 + 2Δt, … and t_1. Before
    t_0 the network is dense.

    Args:
        begin: t_0, in steps or as a share of the training.
        end: t_1, likewise.
        frequency: Δt, the steps from one update to the next, likewise.
        initial_sparsity: s_i, in force from t_0, or from the first update after it if t_0 is 0; s_f is the sparsity
            that the callback is asked for.
    """

    begin: Steps = 0
    end: Steps = 0.5
    frequency: Steps = 100
    initial_sparsity: float = 0.0

    moments = ("begin", "end")
    intervals = ("frequency",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("initial_sparsity", self.initial_sparsity, "[0, 1)")

    def updates_at(self, step: int) -> bool:
        """Tell whether it is a step from begin to end, every ``frequency`` steps and at the end."""
        since = step - self.begin
        return self.begin <= step <= self.end and (since % self.frequency == 0 or step == self.end)

    def gap(self) -> str | None:
        """See :meth:`Timetable.gap`."""
        if not self.begin < self.end < self.begin + self.frequency:
            return None
        return (
            f"frequency={self.frequency} leaves no update between begin={self.begin} and end={self.end}, when all "
            "are removed at once"
        )

    def sparsity(self, step: int, final: float) -> float:
        """Return s(t); see :meth:`Schedule.sparsity`."""
        if step < self.begin:
            return 0.0
        left = (self.end - step) / (self.end - self.begin) if step < self.end else 0.0
        return final + (min(self.initial_sparsity, final) - final) * left**3

    def end_for(self, final: float) -> int:
        """See :meth:`Schedule.end_for`."""
        return int(self.end)


@dataclass(frozen=True)
class IterativeSteps(Schedule):
    """A list of densities, the next one every so many steps: the L2 baseline of Zhang and Stadie (2020).

    s(t) = 1 - d_k for k = floor(t / every), d_0 = 1; of the densities d_1, d_2, … those above the final one count, and
    the final one comes after them.

    Args:
        densities: d_1, d_2, …, shares of the weights that are kept, from larger to smaller.
        every: Steps from one to the next, the first after as many; or a share of the training.
    """

    densities: Sequence[float] = (0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01)
    every: Steps = 10_000

    intervals = ("every",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for density in items_of("densities", self.densities):
            check_number("densities", density, "(0, 1)", "shares of weights to keep")
        ordered = [1.0, *self.densities, 0.0]
        if any(later >= earlier for earlier, later in pairwise(ordered)):
            raise UsageError(
                f"densities={list(self.densities)}: give shares of weights to keep, below 1 and above 0, each smaller "
                "than the one before."
            )

    def updates_at(self, step: int) -> bool:
        """Tell whether it is a multiple of ``every``."""
        return step > 0 and step % self.every == 0

    def sparsity(self, step: int, final: float) -> float:
        """Return s(t); see :meth:`Schedule.sparsity`."""
        levels = self._levels(final)
        return levels[min(int(step // self.every), len(levels) - 1)]

    def end_for(self, final: float) -> int:
        """See :meth:`Schedule.end_for`."""
        return int(self.every * (len(self._levels(final)) - 1))

    def _levels(self, final: float) -> list[float]:
        rounding = 1e-9  # 1 - 0.05 need not be what 0.95 is
        return [0.0, *(1 - density for density in self.densities if 1 - density < final - rounding), final]


@dataclass(frozen=True)
class NarangRamp(Timetable):
    """A threshold ε that rises, below which weights are removed (Narang et al. 2017, arXiv 1704.05119, algorithm 1).

    Every ``frequency`` steps t between start and end, ε = θ·(t - start + 1) / frequency while t < ramp, then
    (θ·(ramp - start + 1) + φ·(t - ramp + 1)) / frequency.

    Args:
        start: Step after which the threshold rises, or a share of the training (the paper: the second epoch).
        ramp: Step from which it rises faster, or a share (the paper: 25 %).
        end: Step before which the last weights are removed, or a share (the paper: 50 %).
        frequency: Steps from one update to the next (the paper: 100), or a share.
        acceleration: φ / θ, the two slopes (the paper: 1.5 to 2).
    """

    start: Steps = 0.05
    ramp: Steps = 0.25
    end: Steps = 0.5
    frequency: Steps = 100
    acceleration: float = 1.5

    moments = ("start", "ramp", "end")
    intervals = ("frequency",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("acceleration", self.acceleration, "(0, inf)", "φ / θ", hint="1.5 to 2 in the paper")

    def updates_at(self, step: int) -> bool:
        """Tell whether it is a multiple of ``frequency`` between start and end, both left out."""
        return self.start < step < self.end and step % self.frequency == 0

    def threshold(self, step: int, theta: float = 1.0) -> float:
        """Return ε when ``step`` steps are over, for a slope θ; it is 0 before the start."""
        slow, fast = min(step, self.ramp), step - self.ramp + 1 if step >= self.ramp else 0
        rise = slow - self.start + 1 + self.acceleration * fast
        return theta * rise / self.frequency if step > self.start else 0.0

    def share(self, step: int, final: float = 1.0) -> float:
        """Return ε as a share of what it is at the last update; see :meth:`Timetable.share`."""
        return self.threshold(step) / self.threshold(self.last_update)

    def theta(self, q: float) -> float:
        """Return the slope θ = 2·q·frequency / (2·(ramp - start) + 3·(end - ramp)): ε ends about q if φ = 1.5·θ.

        Args:
            q: The 90th percentile of |w| in a dense network that was trained.
        """
        return 2 * q * self.frequency / (2 * (self.ramp - self.start) + 3 * (self.end - self.ramp))

    def end_for(self, final: float) -> int:
        """See :meth:`Timetable.end_for`; :attr:`last_update`."""
        return self.last_update

    @property
    def last_update(self) -> int:
        """The step of the last update.

        Raises:
            UsageError: If there is none.
        """
        last = int((self.end - 1) // self.frequency * self.frequency)
        if not self.updates_at(last):
            raise UsageError(
                f"No multiple of frequency={self.frequency} lies between start={self.start} and end={self.end}: no "
                "weight would be removed; give a smaller frequency, or more steps."
            )
        return last


@dataclass(frozen=True)
class CosineDecay(Timetable):
    """The share of the kept weights that move at an update, falling to 0 (Evci et al. 2020, arXiv 1911.11134).

    f(t) = α/2·(1 + cos(π·t / T_end)) for t = ΔT, 2ΔT, … below T_end.

    Args:
        drop: α, above 0 and at most 1 (RigL: 0.3; Selfish-RNN: 0.8).
        every: ΔT, in steps or as a share of the training (RigL: 100; Selfish-RNN: an epoch, 1 / epochs). Where it is
            exactly an epoch, every epoch ends, and is validated, just after weights were dropped.
        end: T_end, likewise; from then on the masks stay (RigL: 0.75; Selfish-RNN: 1.0).
    """

    drop: float = 0.3
    every: Steps = 100
    end: Steps = 0.75

    moments = ("end",)
    intervals = ("every",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("drop", self.drop, "(0, 1]", "the share of the kept weights to move at first")

    def updates_at(self, step: int) -> bool:
        """Tell whether it is a multiple of ``every`` before the end."""
        return 0 < step < self.end and step % self.every == 0

    def gap(self) -> str | None:
        """See :meth:`Timetable.gap`."""
        return f"every={self.every} leaves no update before end={self.end}" if self.every >= self.end else None

    def share(self, step: int, final: float = 1.0) -> float:
        """Return f(t), the share of the kept weights that move; see :meth:`Timetable.share`."""
        return self.drop / 2 * (1 + cos(pi * step / self.end))
