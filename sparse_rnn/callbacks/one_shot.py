"""One-shot pruning: the weights to keep are chosen once, before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from sparse_rnn.callbacks.base import PruningCallback
from sparse_rnn.callbacks.borrowing.samples import TrainingSamples, average_over_ranks
from sparse_rnn.checks import check_seed, check_whole
from sparse_rnn.engine.live import EngineKind
from sparse_rnn.errors import UsageError, check_choice
from sparse_rnn.isolation import all_rng_kept
from sparse_rnn.lightning_loaders import set_up_loader
from sparse_rnn.pruning.options import described
from sparse_rnn.pruning.prune import as_criterion, score_batch
from sparse_rnn.pruning.rescale import Rescale, check_rescale, layer_chi
from sparse_rnn.pruning.rounds import check_rounds, prune_targets
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.scores import Criterion, Scores
from sparse_rnn.sparsity.allocation import Allocation
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Selection
from sparse_rnn.sparsity.shuffle import check_shuffle
from sparse_rnn.sparsity.tiles import TileScore

Origin = Literal["scores", "from_zeros"]


@described
class OneShotPruning(PruningCallback):
    """Prune the recurrent weights of any LightningModule once, before training begins.

    When a fit starts, the module's own ``training_step`` is run on a few training samples to see what its recurrent
    layers receive; their weights are scored, and all but the best are set to 0 and kept there. Nothing else is
    changed: with ``sparsity=0``, which needs no sample, a run is bit for bit the run without the callback. A resumed
    run takes its masks from the checkpoint.

    What is looked at is trained on as well. A DataLoader over a data set that can be read twice is read as a copy; the
    batches of a generator, a stream or any other loader are kept, and the first epoch begins with them.

    Optimisation may be automatic or manual; in manual optimisation the loss is the sum of what ``training_step``
    backpropagates. Hooks such as ``on_train_start`` have not run yet, so ``training_step`` must not depend on them.

    With several batches the scores are averaged, weighted by batch size; with several ranks every rank scores its own
    ``num_samples`` samples and the scores are averaged over ranks.

    Args:
        masks: Where the masks come from: ``scores``, or ``from_zeros`` to train on a network that is sparse already:
            what is 0 stays 0 and everything else is kept. Nothing is scored then, and only ``kernels`` counts of the
            other options.
    """

    def __init__(
        self,
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
        masks: Origin = "scores",
        engine: EngineKind = "auto",
        shuffle: bool = False,
    ) -> None:
        super().__init__(kernels, engine)
        check_choice("masks", masks, Origin)
        check_rescale(rescale)
        check_rounds(rounds)
        check_shuffle(shuffle, block_size)
        check_whole("num_samples", num_samples, 1, hint="64 in the paper")
        check_seed(seed)
        self.sparsity = sparsity
        self.criterion = as_criterion(criterion, sparsity)
        self.num_samples = num_samples
        self.selection = Selection.of(sparsity, allocation, keep_diagonal, min_kept, block_size, block_score)
        self.rescale = rescale
        self.rounds = self.criterion.rounds if rounds is None else rounds
        self.seed = seed
        self.shuffle = shuffle
        self.from_zeros = masks == "from_zeros"

    def notice(self, kernels: Targets) -> None:
        """Warn of a network that is sparse already, unless it is to be."""
        if not self.from_zeros:
            super().notice(kernels)

    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        """Score the weights, on samples where the criterion needs them, and keep the best; or keep what is not 0.

        Raises:
            UsageError: If zeros are to stay and there are none.
        """
        if self.from_zeros:
            return _nonzero(self.targets(pl_module))
        kernels = self.targets(pl_module)
        if self.sparsity == 0:
            self.selection.check(kernels)
            return Masks.full(kernels)  # nothing to choose, so nothing is read that the project would miss
        if self.criterion.needs_data or self.rescale == "chi":
            # Outside: setting up the loader draws from the global generators, as the fit would have done later.
            set_up_loader(trainer)
        with all_rng_kept():
            samples = TrainingSamples(trainer, kernels.recurrent, self.num_samples, self.seed)
            masks, notes = prune_targets(  # as prune() does on the same samples
                kernels,
                self.selection,
                score=lambda: self._scores(trainer, kernels, samples),
                chi=lambda: samples.mean(lambda batch, loss_fn: layer_chi(kernels, batch, loss_fn)),
                rounds=self.rounds,
                rescale=self.rescale,
                seed=self.seed,
                shuffle=self.shuffle,
            )
        for note in notes:
            rank_zero_warn(note)
        return masks

    def made_with(self) -> dict[str, Any]:
        """Return what the masks are chosen with; nothing where they are the zeros that are there."""
        if self.from_zeros:
            return {}
        selection = self.selection
        return {
            "sparsity": self.sparsity,
            "criterion": type(self.criterion).__name__,
            "allocation": str(selection.allocation),
            "keep_diagonal": selection.guards.keep_diagonal,
            "min_kept": selection.guards.min_kept,
            "block_size": str(selection.structure),
            **{name: getattr(self, name) for name in ("num_samples", "rounds", "seed", "rescale", "shuffle")},
        }

    def _scores(self, trainer: Trainer, kernels: Targets, samples: TrainingSamples) -> Scores:
        if not self.criterion.needs_data:
            return average_over_ranks(trainer, score_batch(kernels, None, self.criterion))
        return samples.mean(lambda batch, loss_fn: score_batch(kernels, batch, self.criterion, loss_fn))


def _nonzero(kernels: Targets) -> Masks:
    masks = Masks.of(kernels, {name: kernel.parameter.detach() != 0 for name, kernel in kernels.items()})
    if not masks.removes:
        raise UsageError(
            "masks='from_zeros' goes on with the zeros of a network, but none of the weights to prune is 0: load the "
            "sparse weights before fit(), or leave masks out to prune a dense network."
        )
    return masks
