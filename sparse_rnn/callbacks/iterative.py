"""Iterative pruning: a list of densities, one after the other, while the network is trained."""

from __future__ import annotations

from collections.abc import Sequence

from sparse_rnn.callbacks.gradual import GradualPruning
from sparse_rnn.pruning.schedules import IterativeSteps
from sparse_rnn.scores import Criterion
from sparse_rnn.sparsity.allocation import Allocation


class IterativePruning(GradualPruning):
    """Removes recurrent weights step by step while any LightningModule is trained, without rewinding.

    With magnitudes, the L2 baseline of Zhang and Stadie (2020, section 4): every so many training steps the smallest
    |w| of all that is left are removed, for good, down to the next density of a list; it is
    :class:`GradualPruning` with the schedule :class:`sparse_rnn.pruning.schedules.IterativeSteps`.

    Args:
        sparsity: Share of the weights that are removed in the end: densities above 1 - sparsity are passed through,
            then exactly that is reached.
        densities: Shares of the weights that are kept, from larger to smaller.
        every: Training steps from one density to the next, the first after as many: an integer, or a float share of
            the training. A step is a batch after which an optimizer has stepped, be it one or several.
        criterion: What scores the weights: a criterion or its name; one that needs data sees the batch that the step
            was made on.
        kernels: Shell-style patterns of the names of the weights to prune; by default the input and recurrent kernels
            of every recurrent layer.
        allocation: How the weights that stay are shared out; see :class:`OneShotPruning`.
        seed: Seed of the random numbers of the criterion; training is not affected by it.
    """

    def __init__(
        self,
        sparsity: float = 0.95,
        densities: Sequence[float] = IterativeSteps.densities,
        every: int | float = IterativeSteps.every,
        criterion: Criterion | str = "magnitude",
        kernels: Sequence[str] | None = None,
        allocation: Allocation = "global",
        seed: int = 0,
    ) -> None:
        schedule = IterativeSteps(densities, every)
        super().__init__(sparsity, schedule, criterion, kernels, allocation, seed=seed)
