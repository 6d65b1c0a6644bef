"""Gradual pruning: more and more weights are removed while the network is trained."""

from __future__ import annotations

from collections.abc import Sequence

from sparse_rnn.callbacks.scheduled import ScheduledPruning, Update
from sparse_rnn.checks import check_seed
from sparse_rnn.engine.live import EngineKind
from sparse_rnn.pruning.options import described
from sparse_rnn.pruning.prune import as_criterion
from sparse_rnn.pruning.schedules import Cubic, Schedule
from sparse_rnn.scores import Criterion
from sparse_rnn.sparsity.allocation import Allocation
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Selection
from sparse_rnn.sparsity.tiles import TileScore


@described
class GradualPruning(ScheduledPruning):
    """Remove more and more of the recurrent weights of any LightningModule while it is trained.

    At each update of the schedule the weights that are left are scored and the worst of them removed, for good; what
    the schedule says of the sparsity is reached exactly: round((1 - s)·n) of n weights stay of every group of the
    allocation, s being the same share of what the group is to lose in the end. A resumed run goes on in the middle of
    the schedule; where it is to be longer than the first, shares of the training grow with it.

    A step is a batch after which an optimizer has stepped, be it one or several.

    A network that is still denser may validate better than the last one, and so become the best checkpoint: take the
    last, or :class:`SparseCheckpoint`, for which a model counts once the final sparsity holds.

    Args:
        schedule: The sparsity at each step: :class:`sparse_rnn.pruning.schedules.Cubic` or ``IterativeSteps``.
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
        block_score: TileScore = "max",
        seed: int = 0,
        min_kept: int = 0,
        engine: EngineKind = "auto",
    ) -> None:
        check_seed(seed)
        selection = Selection.of(sparsity, allocation, keep_diagonal, min_kept, block_size, block_score)
        super().__init__(schedule, selection, kernels, engine)
        self.criterion = as_criterion(criterion, sparsity)
        self.seed = seed

    def change(self, update: Update) -> Masks:
        """Remove the worst of what is left."""
        scores = update.scores(self.criterion, self.seed)
        return self.selection.best(update.kernels, scores, update.masks, update.share)
