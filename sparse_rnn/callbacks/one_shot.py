"""One-shot pruning: the weights to keep are chosen once, before training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from sparse_rnn.callbacks.base import PruningCallback
from sparse_rnn.callbacks.borrowing.samples import average_over_ranks, training_batches, training_loss
from sparse_rnn.pruning.prune import as_criterion, prune_in_rounds, rank, score_batch, seeded
from sparse_rnn.pruning.rescale import LayerChi, Rescale, check_rescale, layer_chi, rescaling
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.layers import gates_of, select_kernels
from sparse_rnn.scores import Criterion, Scores
from sparse_rnn.scores.criterion import summed
from sparse_rnn.sparsity.allocation import Allocation, check_allocation, check_sparsity
from sparse_rnn.sparsity.masks import Masks, check_min_kept, emptied

Key = TypeVar("Key")


class OneShotPruning(PruningCallback):
    """Prunes the recurrent weights of any LightningModule once, before training begins.

    When a fit starts, the module's own ``training_step`` is run on a few training samples to see what its recurrent
    layers receive; their weights are scored, and all but the best are set to 0 and kept there. Nothing else is
    changed: with ``sparsity=0`` a run is bit for bit the run without the callback. A resumed run takes its masks from
    the checkpoint.

    Optimisation may be automatic or manual; in manual optimisation the loss is the sum of what ``training_step``
    backpropagates. Hooks such as ``on_train_start`` have not run yet, so ``training_step`` must not depend on them.

    With several batches the scores are averaged, weighted by batch size; with several ranks every rank scores its own
    ``num_samples`` samples and the scores are averaged over ranks.

    Args:
        sparsity: Share of the weights to remove, at least 0 and below 1; exactly round((1 - sparsity)·n) of n stay.
        criterion: What scores the weights: a criterion or its name (``jacobian``, ``snip``, ``grasp``, ``synflow``,
            ``magnitude``, ``random``).
        num_samples: Number of training samples to score on (the paper: 64). A batch that holds more than tensors of
            one length is not cut, so there can be a few more.
        kernels: Shell-style patterns of the names of the weights to prune, such as ``*weight_hh*``; by default the
            input and recurrent kernels of every recurrent layer.
        allocation: How the weights to keep are shared out: ``global`` ranks all kernels together (the paper),
            ``per_kernel`` and ``per_gate`` keep the same share of every kernel or gate, ``erk`` (Erdős-Rényi-Kernel)
            more of small kernels than of large ones. Or a mapping of shell-style patterns of kernel names to the
            density of each kernel that matches, or to one density for each gate, such as ``{"*weight_hh*": {"n":
            0.1}, "*weight_ih*": 0.2}``; what it does not name is ranked together and keeps what is left of the total.
        keep_diagonal: Whether the diagonal of every gate of the recurrent kernels (``weight_hh``, ``weight_ch``) always
            stays, counted within the total.
        min_kept: Number of its best-scored weights that every kernel, gate and neuron (a unit's incoming weights in one
            kernel, over all gates) keeps, within the total; 0 warns where nothing is left of one.
        rescale: Once, after pruning: ``true`` multiplies what stays of every gate of every kernel so that its second
            moment is what it was, ``chi`` what stays of the recurrent kernels of a layer, by one factor, so that its χ
            is (the mean of (J·1)² over the samples, units and last four steps); ``false`` leaves the weights alone.
        rounds: How often to score, remove some weights and score the survivors again, on the way to the sparsity; None
            for what the criterion does by itself (100 for SynFlow, 1 for all others).
        seed: Seed of the samples and of all random numbers of the scoring; training is not affected by it.
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
    ) -> None:
        super().__init__(kernels)
        check_sparsity(sparsity)
        check_allocation(allocation)
        check_min_kept(min_kept)
        check_rescale(rescale)
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples}: give at least 1 (the paper: 64).")
        if rounds is not None and rounds < 1:
            raise ValueError(f"rounds={rounds}: give the number of times to score and prune, at least 1.")
        self.sparsity = sparsity
        self.criterion = as_criterion(criterion)
        self.num_samples = num_samples
        self.allocation = allocation
        self.keep_diagonal = keep_diagonal
        self.min_kept = min_kept
        self.rescale = rescale
        self.rounds = self.criterion.rounds if rounds is None else rounds
        self.seed = seed

    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        """Scores the weights on training samples and keeps the best."""
        # Outside: setting up the loader draws from the global generators, as the fit would have done a moment later.
        trainer.fit_loop.setup_data()
        gates = gates_of(pl_module, select_kernels(pl_module, self.kernels))
        loss_fn = training_loss(trainer)
        with isolate_rng():
            with seeded(self.seed):
                batches = training_batches(trainer, self.num_samples)

            def measure() -> LayerChi:
                with seeded(self.seed):
                    return self._mean(trainer, batches, lambda batch: layer_chi(pl_module, batch, loss_fn))

            rescale_ = rescaling(pl_module, gates, self.rescale, measure)
            with seeded(self.seed):  # as prune() does on the same samples
                masks = prune_in_rounds(
                    pl_module,
                    lambda: self._mean(trainer, batches, lambda batch: self._score(pl_module, batch, loss_fn)),
                    lambda scores, progress: self._rank(pl_module, scores, progress),
                    self.rounds,
                )
            for message in filter(None, [*rescale_(masks), emptied(masks, gates)]):
                rank_zero_warn(message)
        return masks

    def _score(self, pl_module: LightningModule, batch: Any, loss_fn: LossFn) -> Scores:
        return score_batch(pl_module, batch, self.criterion, loss_fn, self.kernels)

    def _rank(self, pl_module: LightningModule, scores: Scores, progress: float) -> Masks:
        return rank(pl_module, scores, self.sparsity, self.allocation, self.keep_diagonal, self.min_kept, progress)

    def _mean(
        self, trainer: Trainer, batches: list[tuple[Any, int]], measure: Callable[[Any], dict[Key, Tensor]]
    ) -> dict[Key, Tensor]:
        """The mean over the samples of all ranks."""
        samples = sum(size for _, size in batches)
        shares = ((name, value * (size / samples)) for batch, size in batches for name, value in measure(batch).items())
        return average_over_ranks(trainer, summed(shares))
