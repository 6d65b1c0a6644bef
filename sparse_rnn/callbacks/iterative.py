"""Iterative pruning: a list of densities, one after the other, while the network is trained."""

from __future__ import annotations

from collections.abc import Sequence

from sparse_rnn.callbacks.gradual import GradualPruning
from sparse_rnn.engine.live import EngineKind
from sparse_rnn.pruning.options import described
from sparse_rnn.pruning.schedules import IterativeSteps
from sparse_rnn.scores import Criterion
from sparse_rnn.sparsity.allocation import Allocation
from sparse_rnn.sparsity.tiles import TileScore


@described
class IterativePruning(GradualPruning):
    """Remove recurrent weights step by step while any LightningModule is trained, without rewinding.

    With magnitudes, the L2 baseline of Zhang and Stadie (2020, section 4): every so many training steps the smallest
    |w| of all that is left are removed, for good, down to the next density of a list; it is
    :class:`GradualPruning` with the schedule :class:`sparse_rnn.pruning.schedules.IterativeSteps`. Densities above
    1 - ``sparsity`` are passed through, then exactly that is reached.

    Args:
        densities: Shares of the weights that are kept, from larger to smaller.
        every: Training steps from one density to the next, the first after as many: an integer, or a float share of
            the training. A step is a batch after which an optimizer has stepped, be it one or several.
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
        keep_diagonal: bool = False,
        min_kept: int = 0,
        block_size: tuple[int, int] | None = None,
        block_score: TileScore = "max",
        engine: EngineKind = "auto",
    ) -> None:
        super().__init__(
            sparsity,
            IterativeSteps(densities, every),
            criterion,
            kernels,
            allocation,
            keep_diagonal,
            block_size,
            block_score,
            seed,
            min_kept,
            engine=engine,
        )
