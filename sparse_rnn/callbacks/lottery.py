"""Lottery tickets: train, prune, go back to the start with what is left, and again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import inf
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from sparse_rnn.callbacks.base import PruningCallback, training_steps
from sparse_rnn.callbacks.borrowing.samples import scores_on_batch
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.options import described
from sparse_rnn.pruning.prune import as_criterion
from sparse_rnn.pruning.schedules import WAYS_TO_END, Steps, check_steps, in_steps
from sparse_rnn.scores import Criterion
from sparse_rnn.sparsity.allocation import Allocation
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Selection
from sparse_rnn.sparsity.statistics import emptied
from sparse_rnn.sparsity.tiles import TileScore


@described
class LotteryTicket(PruningCallback):
    """Find a sparse network that trains well from the start: iterative magnitude pruning with rewinding, in one fit.

    The dense network is trained for a round, the weights that matter least are removed, everything else goes back to
    where it was at step k, and the next round begins (Frankle and Carbin 2019, arXiv 1803.03635; for k > 0 Frankle et
    al. 2020, arXiv 1912.05671). After ``rounds`` such rounds the ticket is trained to the end.

    Rewound are all parameters, buffers that are saved, the states of all optimizers, and learning-rate schedules; not
    the step and epoch of the trainer, the order of the data, and averages that other callbacks keep. The steps after
    step k are shared out evenly among the rounds and the last training, so a learning-rate schedule should end after k
    plus one share. An early round is denser and may validate better than the ticket: do not let a checkpoint callback
    keep only the best, nor early stopping end the training.

    The weights and optimizer states of step k are part of every checkpoint from then on, which makes it twice as large.

    Args:
        rounds: How often to prune and rewind; after round r of R a share (1 - sparsity)^(r/R) of the weights is left.
        rewind: Step k to go back to, or a share of the training; 0 is the initialisation.
    """

    def __init__(
        self,
        sparsity: float = 0.95,
        rounds: int = 4,
        rewind: Steps = 0,
        criterion: Criterion | str = "magnitude",
        kernels: Sequence[str] | None = None,
        allocation: Allocation = "global",
        keep_diagonal: bool = False,
        min_kept: int = 0,
        seed: int = 0,
        block_size: tuple[int, int] | None = None,
        block_score: TileScore = "max",
    ) -> None:
        super().__init__(kernels)
        check_steps("rewind", rewind)
        if rounds < 1:
            raise UsageError(f"rounds={rounds}: give the number of times to prune and rewind, at least 1.")
        self.sparsity = sparsity
        self.rounds = rounds
        self.rewind = rewind
        self.criterion = as_criterion(criterion)
        self.selection = Selection.of(sparsity, allocation, keep_diagonal, min_kept, block_size, block_score)
        self.seed = seed
        self._start: dict[str, Any] | None = None

    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        """Keep everything: the first round is dense."""
        self._start = None
        kernels = self.targets(pl_module)
        self.selection.check(kernels)  # fails now or never
        return Masks.full(kernels)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Share the training out among the rounds.

        Raises:
            UsageError: If it is too short, has no end, or is beyond step k already without its weights.
        """
        super().on_train_start(trainer, pl_module)
        total = training_steps(trainer)
        if total == inf:
            raise UsageError(
                "LotteryTicket shares the steps of the training out among its rounds, but the training has no end that "
                f"is known: give the trainer {WAYS_TO_END}."
            )
        self._first = in_steps("rewind", self.rewind, total)
        self._length = int((total - self._first) // (self.rounds + 1))
        if self._length < 1:
            raise UsageError(
                f"Training ends after {total} steps, which is too short for rewind={self.rewind}, {self.rounds} rounds "
                "and the last training: train longer, or give fewer rounds."
            )
        if self._start is None and self.step > self._first:
            raise UsageError(
                f"rewind={self.rewind}: this run is at step {self.step} already and has not kept its weights of step "
                f"{self._first}; give a later one, or start anew."
            )
        if self.step == self._first:
            self._start = _snapshot(trainer, pl_module)

    def update_masks(self, trainer: Trainer, pl_module: LightningModule, step: int, batch: Any) -> Masks | None:
        """Prune and rewind when a round is over."""
        if step == self._first:
            self._start = _snapshot(trainer, pl_module)
        finished, since = divmod(step - self._first, self._length)
        if since or not 1 <= finished <= self.rounds or self.masks is None or self._start is None:
            return None
        kernels = self.targets(pl_module)
        scores = scores_on_batch(trainer, kernels, batch, self.criterion, self.seed + step)
        masks = self.selection.best(kernels, scores, self.masks, finished / self.rounds, geometric=True)
        _rewind(trainer, pl_module, self._start)
        if message := emptied(masks):
            rank_zero_warn(message)
        return masks

    def extra_state(self) -> dict[str, Any]:
        """Return weights, optimizer states and schedules of step k, once it is over."""
        return {} if self._start is None else {"start": self._start}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`extra_state` gave."""
        self._start = state.get("start")


def _snapshot(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Copy all that training changes, as it is now; tensors and primitives."""
    return copy.deepcopy(
        {
            "model": dict(pl_module.state_dict()),
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedules": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        }
    )


def _rewind(trainer: Trainer, pl_module: LightningModule, start: dict[str, Any]) -> None:
    start = copy.deepcopy(start)  # optimizers and schedules keep what they are given
    pl_module.load_state_dict(start["model"])
    for optimizer, state in zip(trainer.optimizers, start["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    for config, state in zip(trainer.lr_scheduler_configs, start["schedules"], strict=True):
        config.scheduler.load_state_dict(state)
