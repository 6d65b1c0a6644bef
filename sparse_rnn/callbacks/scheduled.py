"""Pruning on a schedule: the network begins dense, or sparse, and its masks change at certain steps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from sparse_rnn.callbacks.base import PruningCallback
from sparse_rnn.callbacks.borrowing.samples import scores_on_batch
from sparse_rnn.engine.live import EngineKind
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.timetable import Timetable
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.scores import Criterion
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Selection
from sparse_rnn.sparsity.statistics import emptied


@dataclass(frozen=True)
class Update:
    """A moment of the training at which masks may change.

    Attributes:
        trainer: The trainer.
        module: The model.
        step: Number of the step that is over, from 1.
        batch: What that step was made on, where it lies, as it was before the step.
        masks: The weights that are left.
        share: How far the schedule is: of a sparsity schedule, the share of the way to the final sparsity.
    """

    trainer: Trainer
    module: LightningModule
    step: int
    batch: Any
    masks: Masks
    share: float

    @cached_property
    def kernels(self) -> Targets:
        """The kernels that are pruned."""
        return Targets.like(self.masks.kernels)

    def scores(self, criterion: Criterion, seed: int) -> Mapping[str, Tensor]:
        """Score the kernels on the batch, averaged over ranks; training goes on as if nothing had been."""
        return scores_on_batch(self.trainer, self.kernels, self.batch, criterion, seed)

    def magnitudes(self) -> dict[str, Tensor]:
        """Return |w| of the kernels."""
        return {name: kernel.parameter.detach().abs() for name, kernel in self.kernels.items()}


class ScheduledPruning(PruningCallback):
    """Change masks at the updates of a schedule: the base of methods of your own, which say in :meth:`change` to what.

    This class turns shares of the training into steps, again where the training turns out to be of another length; asks
    for a change at every update; warns where training ends, or has ended, before the schedule does, where the schedule
    leaves out updates, and of what lost everything at its last one. What a resumed run has left to remove when the
    schedule, which is another one now, is over already, is removed after its first step.

    Args:
        schedule: When masks change, in steps or shares of the training.
        selection: Which weights stay, given scores and a share of the way.
        kernels: Shell-style patterns of the names of the weights to prune; null for every recurrent kernel.
        engine: What computes the pruned layers; see :class:`sparse_rnn.engine.live.Engine`.

    Attributes:
        sparsity: Share of the weights that are removed in the end; None where training decides it.
        schedule_in_steps: The schedule in whole steps, once training has started.
        schedules: The class that the schedule must be of.
    """

    schedules: type = Timetable

    def __init__(
        self,
        schedule: Timetable,
        selection: Selection,
        kernels: Sequence[str] | None = None,
        engine: EngineKind = "auto",
    ) -> None:
        if not isinstance(schedule, self.schedules):
            raise UsageError(f"schedule={schedule!r}: {type(self).__name__} takes a {self.schedules.__name__}.")
        super().__init__(kernels, engine)
        self.schedule = schedule
        self.schedule_in_steps = schedule
        self.selection = selection
        self.sparsity: float | None = selection.sparsity
        self._planned = False
        self._finished = False
        self._warned: set[str] | None = None  # None before the schedule was looked at
        self._begin: int | None = None  # the step that the fit goes on from
        self._total: float = inf

    @abstractmethod
    def change(self, update: Update) -> Masks | None:
        """Choose other weights to keep, at an update of the schedule; None where they stay the same.

        Ranks must choose alike. Weights that come back start at 0, with a cleared optimizer state.
        """

    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        """Keep everything: training begins dense."""
        kernels = self.targets(pl_module)
        self.selection.check(kernels)
        return Masks.full(kernels)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turn shares of the training into steps."""
        self._planned = self._finished = False
        self._warned = self._begin = None
        super().on_train_start(trainer, pl_module)
        if pl_module.automatic_optimization:  # by hand the first step shows how long the training is
            self._warn()

    def on_training_length(self, total: float | None) -> None:
        """Turn shares of the training into steps; what worked stays where an estimate makes no sense."""
        if self._begin is None:
            self._begin = self.step
        if total is None:
            return
        try:
            self.plan(total)
        except UsageError:
            if not self._planned:
                raise
        else:
            self._planned, self._total = True, total
            self._finished = self._finished or (self._is_past and not self._falls_short)

    def plan(self, total: float) -> None:
        """Turn shares of a training of so many steps into steps, or refuse them with a UsageError."""
        schedule = self.schedule.over(total)
        if self.sparsity != 0:
            schedule.end_for(self.selection.sparsity)  # refused if there is no update
        self.schedule_in_steps = schedule

    def gaps(self) -> list[str]:
        """Say which updates an interval is too long for."""
        return [message for message in (self.schedule_in_steps.gap(),) if message]

    def wants_batch(self, step: int) -> bool:
        """Ask for it at the updates of the schedule."""
        return self._updates_at(step)

    def update_masks(self, trainer: Trainer, pl_module: LightningModule, step: int, batch: Any) -> Masks | None:
        """Let the masks change at the updates of the schedule."""
        self._warn()
        if self.masks is None or not self._updates_at(step):
            return None
        late = self._is_late(step)
        share = 1.0 if late else self.schedule_in_steps.share(step, self.selection.sparsity)
        masks = self.change(Update(trainer, pl_module, step, batch, self.masks, share))
        if late or step == self._last_update:
            self._finished = True
            if masks is not None and (message := emptied(masks)):
                rank_zero_warn(message)
        return masks

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the final sparsity was not reached."""
        super().on_train_end(trainer, pl_module)
        if not self.sparsity or self.masks is None or self.is_final or self._warned:
            return
        if self.masks.sparsity >= self.selection.sparsity:
            return
        plan = f"it removes weights until step {self._last_update:,}" if self._planned else "it had no time to plan"
        rank_zero_warn(
            f"{type(self).__name__}: training ended after step {self.step:,} at a sparsity of "
            f"{self.masks.sparsity:.4f}, not the {self.sparsity} that was asked for: {plan}. Where early stopping or a "
            "time limit ends the training, or its batches are fewer than planned, make the schedule shorter."
        )

    @property
    def is_final(self) -> bool:
        """Whether the last weights that the schedule removes are gone, once training has started."""
        if self.sparsity == 0 or not super().is_final:
            return super().is_final
        last = self._last_update if self._planned else inf
        return last is None or (self._finished and self.step >= last)

    @property
    def _last_update(self) -> int | None:
        return self.schedule_in_steps.end_for(self.selection.sparsity)

    @property
    def _is_past(self) -> bool:
        """Whether the fit goes on from a step at which the schedule was over."""
        last = self._last_update
        return last is not None and self._begin is not None and self._begin >= max(last, 1)

    @property
    def _falls_short(self) -> bool:
        """Whether more weights are left than in the end, whatever they score."""
        assert self.masks is not None
        kernels = Targets.like(self.masks.kernels)
        alike = {name: torch.ones_like(kernel.parameter).detach() for name, kernel in kernels.items()}
        return self.selection.best(kernels, alike, self.masks).kept < self.masks.kept

    def _updates_at(self, step: int) -> bool:
        planned = self.sparsity != 0 and self._planned
        return planned and (self._is_late(step) or self.schedule_in_steps.updates_at(step))

    def _is_late(self, step: int) -> bool:
        """Tell whether the last update was not made and lies behind: the training is shorter than it seemed.

        One that goes on dense stays so: what was asked for is a schedule, and that has not begun.
        """
        last = self._last_update
        if last is None or self._finished or step <= last:
            return False
        return not self._is_past or (self.masks is not None and self.masks.removes)

    def _warn(self) -> None:
        """Warn, once, of a training that ends before the last update or begins after it too dense, and of a gap."""
        if self._warned is not None or self.sparsity == 0 or not self._planned:
            return
        self._warned = set()
        name, masks, last, total = type(self).__name__, self.masks, self._last_update, self._total
        if last is not None and last > total:
            self._warned.add("short")
            rank_zero_warn(
                f"{name} removes weights until step {last:,}, but training ends after {total:,}: the final sparsity is "
                "not reached; make the schedule shorter or the training longer."
            )
        elif self._is_past and not self._finished and masks is not None:
            self._warned.add("past")
            rest = f"at a sparsity of {masks.sparsity:.4f}: the rest, to {self.sparsity}, goes after the next step"
            rank_zero_warn(
                f"{name} removes weights until step {last:,}, but this run is at step {self._begin:,} already and "
                f"{rest if masks.removes else 'dense: nothing is removed'}; give a later schedule, or start anew."
            )
        for message in self.gaps():
            rank_zero_warn(f"{name}: {message}; give a smaller number of steps, or train longer.")
