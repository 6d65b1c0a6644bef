"""Dynamic sparsity: the network is sparse from the start, and its weights move to better places while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from sparse_rnn.callbacks.one_shot import OneShotPruning
from sparse_rnn.callbacks.regrowth import Growth, Redistribution, Regrowth
from sparse_rnn.callbacks.scheduled import ScheduledPruning, Update
from sparse_rnn.checks import check_seed
from sparse_rnn.engine.live import EngineKind
from sparse_rnn.pruning.options import described
from sparse_rnn.pruning.rescale import Rescale
from sparse_rnn.pruning.schedules import CosineDecay
from sparse_rnn.scores import Criterion
from sparse_rnn.sparsity.allocation import Allocation
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.tiles import TileScore


@described
class DynamicSparsity(ScheduledPruning):
    """Train a network that is sparse from the first step, and move its weights meanwhile (RigL, SET, Selfish-RNN).

    It begins as :class:`OneShotPruning` does. At every update of a schedule the smallest weights (by |w|) of each
    kernel are dropped, and as many grown among all others: those with the largest gradients (RigL, Evci et al. 2020,
    arXiv 1911.11134), or random ones (SET, Mocanu et al. 2018, arXiv 1707.04780;
    Selfish-RNN, Liu et al. 2021, arXiv 2101.09048). Every kernel keeps exactly its number of weights; its gates
    exchange theirs unless told otherwise, as in Selfish-RNN. Grown weights start at 0, with a cleared optimizer state;
    one that is dropped and grown again at once stays as it is, as in the authors' code. With ``block_size`` whole tiles
    move, and every kernel keeps its number of tiles; those at edges and on kept diagonals hold fewer weights.

    An update follows the optimizer's step; RigL's code has it in place of that. The gradients are those of that step:
    accumulated, averaged over ranks, not yet clipped; in manual optimisation, of all backward passes of the batch
    together. Between updates the removed weights have none. A step whose gradients overflowed, in float16, updates
    nothing, nor does one after which weights are not finite.

    ``allocation`` and ``min_kept`` say where the weights are at first; ``keep_diagonal`` and ``block_size`` hold
    throughout. To start as RigL does, take ``criterion=Random()`` and ``allocation="erk"``.

    Args:
        growth: Which weights come back: ``gradient`` or ``random``.
        schedule: When weights move, and which share of them.
        redistribution: Within what weights move: each ``kernel``, over its gates, or each ``gate`` of each kernel.
    """

    schedules = CosineDecay

    def __init__(
        self,
        growth: Growth = "gradient",
        schedule: CosineDecay = CosineDecay(),  # noqa: B008 - frozen, and shown by --help
        redistribution: Redistribution = "kernel",
        sparsity: float = 0.95,
        criterion: Criterion | str = "jacobian",
        num_samples: int = 64,
        kernels: Sequence[str] | None = None,
        allocation: Allocation = "global",
        keep_diagonal: bool = False,
        min_kept: int = 0,
        rescale: Rescale = False,
        rounds: int | None = None,
        seed: int = 0,
        block_size: tuple[int, int] | None = None,
        block_score: TileScore = "max",
        engine: EngineKind = "auto",
    ) -> None:
        check_seed(seed, least=0)
        self._regrowth = Regrowth(growth, redistribution, seed)
        self.first = OneShotPruning(
            sparsity,
            criterion,
            num_samples,
            kernels,
            allocation,
            keep_diagonal,
            min_kept,
            rescale,
            rounds,
            seed,
            block_size,
            block_score,
        )
        super().__init__(schedule, self.first.selection, kernels, engine)
        self.criterion = self.first.criterion
        self.growth = growth
        self.redistribution = redistribution
        self.seed = seed

    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        """Choose the first weights as :class:`OneShotPruning` does."""
        return self.first.find_masks(trainer, pl_module)

    def made_with(self) -> dict[str, Any]:
        """Return what the first masks are chosen with."""
        return self.first.made_with()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turn shares of the training into steps."""
        super().on_train_start(trainer, pl_module)
        self._regrowth.forget()

    def wants_dense_gradients(self, step: int) -> bool:
        """Ask for them where weights grow by them."""
        return self._regrowth.needs_gradients and self._updates_at(step)

    def on_dense_gradients(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Keep the gradients of all weights for the update that follows this step."""
        if self.masks is not None and self.wants_dense_gradients(step):
            self._regrowth.collect(pl_module, self.masks)

    def change(self, update: Update) -> Masks | None:
        """Drop and grow."""
        return self._regrowth.moved(self.selection, update)
