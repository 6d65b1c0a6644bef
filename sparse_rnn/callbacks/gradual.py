"""Gradual pruning: more and more weights are removed while the network is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from sparse_rnn.callbacks.base import PruningCallback, training_steps, warn_of_end, warn_of_gap
from sparse_rnn.callbacks.borrowing.samples import scores_on_batch
from sparse_rnn.pruning.prune import as_criterion
from sparse_rnn.pruning.schedules import Cubic, Schedule
from sparse_rnn.recurrent.layers import gates_of, select_kernels
from sparse_rnn.scores import Criterion
from sparse_rnn.sparsity.allocation import Allocation, check_allocation, check_sparsity
from sparse_rnn.sparsity.masks import Masks, emptied
from sparse_rnn.sparsity.selection import Thinning
from sparse_rnn.sparsity.tiles import Blocks, BlockScore


class GradualPruning(PruningCallback):
    """Removes more and more of the recurrent weights of any LightningModule while it is trained.

    At each update of the schedule the weights that are left are scored and the worst of them removed, for good; what
    the schedule says of the sparsity is reached exactly: round((1 - s)·n) of n weights stay of every group of the
    allocation, s being the same share of what the group is to lose in the end. A resumed run goes on in the middle of
    the schedule; where it is to be longer than the first, shares of the training grow with it.

    A step is a batch after which an optimizer has stepped, be it one or several. A criterion that needs data sees the
    batch that the step was made on.

    A network that is still denser may validate better than the last one: a checkpoint callback that keeps the best
    should not be relied on; take the last.

    Args:
        sparsity: Share of the weights that are removed in the end, at least 0 and below 1.
        schedule: The sparsity at each step: :class:`sparse_rnn.pruning.schedules.Cubic` or ``IterativeSteps``.
        criterion: What scores the weights: a criterion or its name; those with the largest scores stay.
        kernels: Shell-style patterns of the names of the weights to prune; by default the input and recurrent kernels
            of every recurrent layer.
        allocation: How the weights that stay are shared out: ``global``, ``per_kernel``, ``per_gate``, ``erk``, or a
            mapping of name patterns to the final density of each kernel, or of each of its gates, such as
            ``{"*weight_hh*": {"r": 0.05, "z": 0.05, "n": 0.2}}``; see :class:`OneShotPruning`.
        keep_diagonal: Whether the diagonal of every gate of the recurrent kernels (``weight_hh``, ``weight_ch``) always
            stays, counted within the total.
        block_size: Units and inputs of the blocks that are kept or removed as one, such as (4, 8), cut from the upper
            left corner of every gate; where they do not divide it, those at its right and lower edges are smaller. As
            many stay as come nearest to the number of weights. Diagonals that are kept belong to no block.
        block_score: What ranks a block: ``max``, its largest score, or ``mean_square``.
        seed: Seed of the random numbers of the criterion; training is not affected by it.
    """

    def __init__(
        self,
        sparsity: float = 0.95,
        schedule: Schedule = Cubic(),  # noqa: B008 - frozen, and shown by --help
        criterion: Criterion | str = "magnitude",
        kernels: Sequence[str] | None = None,
        allocation: Allocation = "global",
        keep_diagonal: bool = False,
        block_size: tuple[int, int] | None = None,
        block_score: BlockScore = "max",
        seed: int = 0,
    ) -> None:
        super().__init__(kernels)
        check_sparsity(sparsity)
        check_allocation(allocation)
        blocks = None if block_size is None else Blocks(*block_size, block_score)
        self.sparsity = sparsity
        self.thinning = Thinning(sparsity, allocation, keep_diagonal, blocks)
        self.schedule = schedule
        self.criterion = as_criterion(criterion)
        self.seed = seed
        self.schedule_in_steps = schedule

    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        """Keeps everything: training begins dense."""
        masks = Masks.full(pl_module, select_kernels(pl_module, self.kernels))
        self.thinning.check(pl_module, masks)
        return masks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turns shares of the training into steps."""
        super().on_train_start(trainer, pl_module)
        total = training_steps(trainer)
        self.schedule_in_steps = self.schedule.over(total)
        if self.sparsity:
            warn_of_end(self, self.schedule_in_steps.end_for(self.sparsity), total)
            warn_of_gap(self, self.schedule_in_steps)

    def update_masks(self, trainer: Trainer, pl_module: LightningModule, step: int, batch: Any) -> Masks | None:
        """Removes the worst of what is left, at the updates of the schedule."""
        final = self.sparsity
        if self.masks is None or not final or not self.schedule_in_steps.updates_at(step):
            return None
        scores = scores_on_batch(trainer, pl_module, batch, self.criterion, self.kernels, self.seed)
        masks = self.thinning.best(pl_module, self.masks, scores, self.schedule_in_steps.sparsity(step, final) / final)
        if step == self.schedule_in_steps.end_for(final) and (message := emptied(masks, gates_of(pl_module, masks))):
            rank_zero_warn(message)
        return masks
