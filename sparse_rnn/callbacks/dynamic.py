"""Dynamic sparsity: the network is sparse from the start, and its weights move to better places while it is trained."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from sparse_rnn.callbacks.base import training_steps, warn_of_gap
from sparse_rnn.callbacks.borrowing.samples import average_over_ranks
from sparse_rnn.callbacks.one_shot import OneShotPruning
from sparse_rnn.pruning.schedules import CosineDecay
from sparse_rnn.recurrent.layers import gates_of, state_kernels
from sparse_rnn.sparsity.growth import exchange, random_scores
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.ranking import cut, diagonals

Growth = Literal["gradient", "random"]
Redistribution = Literal["kernel", "gate"]


class DynamicSparsity(OneShotPruning):
    """Prunes as :class:`OneShotPruning` does before training; then moves weights at every update of a schedule.

    The smallest weights (by |w|) of each kernel are dropped, and as many grown among all others: those with the largest
    gradients (RigL, Evci et al. 2020, arXiv 1911.11134), or random ones (SET, Mocanu et al. 2018, arXiv 1707.04780;
    Selfish-RNN, Liu et al. 2021, arXiv 2101.09048). Every kernel keeps exactly its number of weights; its gates
    exchange theirs unless told otherwise, as in Selfish-RNN. Grown weights start at 0, with a cleared optimizer state;
    one that is dropped and grown again at once stays as it is, as in the authors' code.

    An update follows the optimizer's step; RigL's code has it in place of that. The gradients are those of that step:
    accumulated, averaged over ranks, not yet clipped; in manual optimisation, of all backward passes of the batch
    together. Between updates the removed weights have none. A step whose gradients overflowed, in float16, updates
    nothing.

    ``allocation`` and ``min_kept`` say where the weights are at first; ``keep_diagonal`` holds throughout. To start as
    RigL does, take ``criterion=Random()`` and ``allocation="erk"``.

    Args:
        growth: Which weights come back: ``gradient`` or ``random``.
        schedule: When weights move, and which share of them.
        redistribution: Within what weights move: each ``kernel``, over its gates, or each ``gate`` of each kernel.
        **initial: The arguments of :class:`OneShotPruning`, which chooses the first weights; ``seed`` is the seed of
            random growth too.
    """

    def __init__(
        self,
        growth: Growth = "gradient",
        schedule: CosineDecay = CosineDecay(),  # noqa: B008 - frozen, and shown by --help
        redistribution: Redistribution = "kernel",
        **initial: Any,
    ) -> None:
        super().__init__(**initial)
        for name, value, known in (("growth", growth, Growth), ("redistribution", redistribution, Redistribution)):
            if value not in get_args(known):
                raise ValueError(f"{name}={value!r}: choose one of {', '.join(get_args(known))}.")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: give a whole number of at least 0.")
        self.growth = growth
        self.schedule = schedule
        self.schedule_in_steps = schedule
        self.redistribution = redistribution
        self._gradients: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turns shares of the training into steps."""
        super().on_train_start(trainer, pl_module)
        self.schedule_in_steps = self.schedule.over(training_steps(trainer))
        warn_of_gap(self, self.schedule_in_steps)
        self._gradients = {}

    def on_dense_gradients(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Keeps the gradients of all weights for the update that follows this step."""
        if self.masks is None or self.growth == "random" or not self.schedule_in_steps.updates_at(step):
            return
        for name, mask in self.masks.items():
            gradient = pl_module.get_parameter(name).grad
            if gradient is not None:
                gradient = gradient.to_dense()  # an embedding may have a sparse one
                # What earlier backward passes of the batch gave the removed weights is masked in it already.
                before = self._gradients.get(name, torch.zeros_like(gradient)).masked_fill(mask, 0)
                self._gradients[name] = before + gradient

    def update_masks(self, trainer: Trainer, pl_module: LightningModule, step: int, batch: Any) -> Masks | None:
        """Moves weights at the updates of the schedule."""
        if self.masks is None or not self.schedule_in_steps.updates_at(step):
            return None
        growth = self._growth_scores(trainer, self.masks, step)
        if not all(score.isfinite().all() for score in growth.values()):
            return None
        masks, share = dict(self.masks), self.schedule_in_steps.share(step)
        gates, sizes = gates_of(pl_module, masks), self._sizes(pl_module, self.masks)
        for name, scores in growth.items():
            parts = len(gates[name]) if self.redistribution == "gate" else 1
            masks[name] = exchange(masks[name], sizes[name], scores, share, parts)
        return Masks(masks, pl_module)

    def _growth_scores(self, trainer: Trainer, masks: Masks, step: int) -> dict[str, Tensor]:
        """Equal on all ranks; a kernel that no loss depended on has none."""
        if self.growth == "random":
            return {name: random_scores(mask, self.seed, step, i) for i, (name, mask) in enumerate(masks.items())}
        gradients, self._gradients = self._gradients, {}
        # DDP has averaged them, unless a project has kept it from that in manual optimisation.
        return {name: gradient.abs() for name, gradient in average_over_ranks(trainer, gradients).items()}

    def _sizes(self, pl_module: LightningModule, masks: Masks) -> dict[str, Tensor]:
        """|w|, infinite where a weight is not to be dropped."""
        sizes = {name: pl_module.get_parameter(name).detach().abs() for name in masks}
        if self.keep_diagonal:
            blocks = {name: cut(sizes[name], gates) for name, gates in gates_of(pl_module, masks).items()}
            for name, diagonal in diagonals(blocks, state_kernels(pl_module)).items():
                sizes[name].masked_fill_(diagonal.view_as(sizes[name]), torch.inf)
        return sizes
