"""Lottery tickets: train, prune, go back to the start with what is left, and again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from math import inf, log
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from sparse_rnn.callbacks.base import PruningCallback
from sparse_rnn.callbacks.borrowing.samples import scores_on_batch
from sparse_rnn.checks import check_seed, check_whole
from sparse_rnn.engine.live import EngineKind
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.options import described
from sparse_rnn.pruning.prune import as_criterion
from sparse_rnn.pruning.timetable import WAYS_TO_END, Steps, check_steps, in_steps
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.scores import Criterion
from sparse_rnn.sparsity.allocation import Allocation
from sparse_rnn.sparsity.copies import Copies
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
        engine: EngineKind = "auto",
    ) -> None:
        super().__init__(kernels, engine)
        check_steps("rewind", rewind)
        check_whole("rounds", rounds, 1, wanted="the number of times to prune and rewind")
        check_seed(seed)
        self.sparsity = sparsity
        self.rounds = rounds
        self.rewind = rewind
        self.criterion = as_criterion(criterion, sparsity)
        self.selection = Selection.of(sparsity, allocation, keep_diagonal, min_kept, block_size, block_score)
        self.seed = seed
        self._start: dict[str, Any] | None = None
        self._first, self._first_known = 0, False
        self._length: int | None = None
        self._finished: int | None = None

    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        """Keep everything: the first round is dense."""
        self._start, self._first_known, self._finished = None, False, 0
        kernels = self.targets(pl_module)
        self.selection.check(kernels)  # fails now or never
        return Masks.full(kernels)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Share the training out among the rounds, and keep the weights of step k if it is this one.

        Raises:
            UsageError: If it is too short, has no end, or is beyond step k already without its weights.
        """
        self._length = None
        super().on_train_start(trainer, pl_module)
        if self._start is None and self.step > self._first:
            raise UsageError(
                f"rewind={self.rewind}: this run is at step {self.step} already and has not kept its weights of step "
                f"{self._first}; give a later one, or start anew."
            )
        if self._start is None and self.step == self._first:
            self._start, self._first_known = _snapshot(trainer, pl_module), True

    def on_training_length(self, total: float | None) -> None:
        """Share the training out among the rounds, again where it turns out to be of another length."""
        if total is None:
            return
        if total == inf:
            raise UsageError(
                "LotteryTicket shares the steps of the training out among its rounds, but the training has no end that "
                f"is known: give the trainer {WAYS_TO_END}."
            )
        if not (self._first_known and self._start is not None):  # step k stays where it was
            self._first = in_steps("rewind", self.rewind, total)
        length = int((total - self._first) // (self.rounds + 1))
        if length >= 1:
            self._length = length
        elif self._length is None:
            raise UsageError(
                f"Training ends after {total} steps, which is too short for rewind={self.rewind}, {self.rounds} rounds "
                "and the last training: train longer, or give fewer rounds."
            )

    def wants_batch(self, step: int) -> bool:
        """Ask for it where a round may be over."""
        return bool(self.sparsity) and self._rounds_over(step) > (self._finished or 0)

    def update_masks(self, trainer: Trainer, pl_module: LightningModule, step: int, batch: Any) -> Masks | None:
        """Prune and rewind when a round is over."""
        if self._length is None or not self.sparsity:  # a dense run is as it is without a callback
            return None
        if self._start is None and step >= self._first:
            self._first, self._start, self._first_known = step, _snapshot(trainer, pl_module), True
        if self._finished is None:  # a checkpoint that does not tell, or counts rounds to another sparsity or number
            self._finished = self._rounds_of(self.masks)
        if self._rounds_over(step) <= self._finished or self.masks is None or self._start is None:
            return None
        self._finished += 1
        kernels = Targets.like(self.masks.kernels)
        scores = scores_on_batch(trainer, kernels, batch, self.criterion, self.seed + step)
        masks = self.selection.best(kernels, scores, self.masks, self._finished / self.rounds, geometric=True)
        _mask(trainer, self._start, masks)
        _rewind(trainer, pl_module, self._start)
        if message := emptied(masks):
            rank_zero_warn(message)
        return masks

    def _rounds_over(self, step: int) -> int:
        """Count the rounds that are over at a step."""
        return 0 if self._length is None else min((step - self._first) // self._length, self.rounds)

    def _rounds_of(self, masks: Masks | None) -> int:
        """Count the rounds after which as many weights are left; the length of the training may be another one now."""
        if masks is None or not masks.removes or not self.sparsity:
            return 0
        rounds = self.rounds * log(max(masks.kept, 1) / masks.total) / log(1 - self.sparsity)
        return min(self.rounds, int(rounds + 0.25))  # numbers of weights are rounded

    @property
    def is_final(self) -> bool:
        """Whether the last round is over, once training has started."""
        return super().is_final and (not self.sparsity or (self._finished or 0) >= self.rounds)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the training ended before the last round was over."""
        super().on_train_end(trainer, pl_module)
        finished = self._finished or 0
        if self.sparsity and self.masks is not None and finished < self.rounds and self._fell_short:
            rank_zero_warn(
                f"LotteryTicket: training ended after step {self.step:,}, and only {finished} of {self.rounds} rounds, "
                f"at a sparsity of {self.masks.sparsity:.4f}, not the {self.sparsity} that was asked for: do not let "
                "early stopping or a time limit end it, or give fewer rounds."
            )

    @property
    def _fell_short(self) -> bool:
        return self.masks is not None and self.masks.sparsity < self.sparsity - 1 / self.masks.total

    def extra_state(self) -> dict[str, Any]:
        """Return weights, optimizer states and schedules of step k, once it is over."""
        known = {"first": self._first, "finished": self._finished, "rounds": self.rounds, "sparsity": self.sparsity}
        rounds = {} if self._finished is None else known
        return rounds if self._start is None else {"start": self._start, **rounds}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`extra_state` gave."""
        if problem := _problem(state):
            raise UsageError(f"What it began with is damaged: {problem}.")
        same = all(
            state.get(name, asked) == asked for name, asked in (("rounds", self.rounds), ("sparsity", self.sparsity))
        )
        self._start, self._finished = state.get("start"), state.get("finished") if same else None
        self._first, self._first_known = state.get("first", 0), "first" in state


def _problem(state: Mapping[str, Any]) -> str | None:
    """Say what is wrong with an extra state from a checkpoint; None if nothing is."""
    start = state.get("start")
    numbers = (state.get(name) for name in ("first", "finished", "rounds"))
    if any(number is not None and (type(number) is not int or number < 0) for number in numbers):
        return "the numbers of its first step and of rounds are none"
    if start is None:
        return None
    if not isinstance(start, Mapping) or not isinstance(start.get("model"), Mapping):
        return "it has no weights"
    lists = (start.get(name) for name in ("optimizers", "schedules"))
    if not all(isinstance(found, list) and all(isinstance(one, Mapping) for one in found) for found in lists):
        return "it has no states of optimizers and schedules"
    return None


def _snapshot(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Copy all that training changes, as it is now; tensors and primitives."""
    return copy.deepcopy(
        {
            "model": dict(pl_module.state_dict()),
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedules": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        }
    )


def _mask(trainer: Trainer, start: dict[str, Any], masks: Masks) -> None:
    """Zero what never comes back in the weights of step k, and in the averages that optimizers had."""
    copies = Copies(trainer.lightning_module, masks)
    found = list(copies.named(start["model"]))
    for optimizer, state in zip(trainer.optimizers, start["optimizers"], strict=True):
        found += copies.of_optimizer_state(state, optimizer)
    masks.apply_to_((name, tensor) for _, name, tensor in found)


def _rewind(trainer: Trainer, pl_module: LightningModule, start: dict[str, Any]) -> None:
    start = copy.deepcopy(start)  # optimizers and schedules keep what they are given
    pl_module.load_state_dict(start["model"])
    for optimizer, state in zip(trainer.optimizers, start["optimizers"], strict=True):
        # What others have added since step k stays, such as the rate of stochastic weight averaging, or groups of
        # parameters that are trained since. A project's own optimizer may save its state in another form.
        groups = state.get("param_groups", [])
        groups += optimizer.state_dict().get("param_groups", [])[len(groups) :]
        for group, saved in zip(optimizer.param_groups, groups, strict=False):
            saved |= {name: value for name, value in group.items() if name not in saved and name != "params"}
        optimizer.load_state_dict(state)
    for config, state in zip(trainer.lr_scheduler_configs, start["schedules"], strict=False):
        if config.scheduler.state_dict().keys() == state.keys():  # it may have been replaced since, by averaging too
            config.scheduler.load_state_dict(state)
