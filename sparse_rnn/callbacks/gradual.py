"""Gradual pruning: more and more weights are removed while the network is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from sparse_rnn.callbacks.regrowth import Regrowth
from sparse_rnn.callbacks.scheduled import ScheduledPruning, Update
from sparse_rnn.checks import check_seed
from sparse_rnn.engine.live import EngineKind
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.options import described
from sparse_rnn.pruning.prune import as_criterion
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, Schedule
from sparse_rnn.scores import Criterion
from sparse_rnn.sparsity.allocation import Allocation, counts_by_gate
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

    With ``regrowth`` weights also come back (GraNet, Liu et al. 2021, arXiv 2106.10404): at updates of its own the
    smallest of each kernel are dropped, and as many grown among all others, those with the largest gradients; see
    :class:`DynamicSparsity`. Kernels keep their numbers of weights at these updates; their gates exchange theirs,
    unless ``allocation`` gives gates numbers of their own. Where weights are removed after the same step, those can
    come back at once. There is no ``min_kept`` with it, as weights that move may leave a neuron without any.

    A step is a batch after which an optimizer has stepped, be it one or several.

    A network that is still denser may validate better than the last one, and so become the best checkpoint: take the
    last, or :class:`SparseCheckpoint`, for which a model counts once the final sparsity holds.

    Args:
        schedule: The sparsity at each step: :class:`sparse_rnn.pruning.schedules.Cubic` or ``IterativeSteps``.
        regrowth: When weights move to the place of removed ones, and which share of those that are kept; null: what is
            removed stays away.
    """

    schedules = Schedule

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
        regrowth: CosineDecay | None = None,
        engine: EngineKind = "auto",
    ) -> None:
        check_seed(seed)
        if not isinstance(regrowth, CosineDecay | None):
            raise UsageError(f"regrowth={regrowth!r}: give a CosineDecay, or None.")
        if regrowth is not None and min_kept:
            raise UsageError(
                f"min_kept={min_kept} cannot be held with regrowth, where weights move away from neurons: leave out "
                "one of them."
            )
        selection = Selection.of(sparsity, allocation, keep_diagonal, min_kept, block_size, block_score)
        super().__init__(schedule, selection, kernels, engine)
        self.criterion = as_criterion(criterion, sparsity)
        self.seed = seed
        self.regrowth = self.regrowth_in_steps = regrowth
        self._regrowth = Regrowth("gradient", "gate" if counts_by_gate(allocation) else "kernel", seed)

    def change(self, update: Update) -> Masks:
        """Remove the worst of what is left."""
        scores = update.scores(self.criterion, self.seed)
        return self.selection.best(update.kernels, scores, update.masks, update.share)

    def plan(self, total: float) -> None:
        """See :meth:`ScheduledPruning.plan`."""
        super().plan(total)
        if self.regrowth is not None:
            self.regrowth_in_steps = self.regrowth.over(total)

    def gaps(self) -> list[str]:
        """See :meth:`ScheduledPruning.gaps`."""
        gap = None if self.regrowth_in_steps is None else self.regrowth_in_steps.gap()
        return super().gaps() + ([f"regrowth: {gap}"] if gap else [])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turn shares of the training into steps."""
        super().on_train_start(trainer, pl_module)
        self._regrowth.forget()

    def wants_dense_gradients(self, step: int) -> bool:
        """Ask for them where weights grow by them."""
        return self._regrows_at(step)

    def on_dense_gradients(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Keep the gradients of all weights for the regrowth that follows this step."""
        if self.masks is not None and self._regrows_at(step):
            self._regrowth.collect(pl_module, self.masks)

    def update_masks(self, trainer: Trainer, pl_module: LightningModule, step: int, batch: Any) -> Masks | None:
        """Remove at the updates of the schedule, move at those of the regrowth."""
        removed = super().update_masks(trainer, pl_module, step, batch)
        masks = self.masks if removed is None else removed
        if masks is None or self.regrowth_in_steps is None or not self._regrows_at(step):
            return removed
        share = self.regrowth_in_steps.share(step)
        moved = self._regrowth.moved(self.selection, Update(trainer, pl_module, step, batch, masks, share))
        return removed if moved is None else moved

    def _regrows_at(self, step: int) -> bool:
        regrowth = self.regrowth_in_steps
        return regrowth is not None and self.sparsity != 0 and self._planned and regrowth.updates_at(step)
