"""One-shot pruning: the weights to keep are chosen once, before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from sparse_rnn.allocation import Allocation, check_allocation, check_sparsity
from sparse_rnn.callbacks.pruning import PruningCallback, average_over_ranks
from sparse_rnn.callbacks.samples import training_batches, training_loss
from sparse_rnn.masks import Masks
from sparse_rnn.pruning import as_criterion, prune_in_rounds, rank, score_batch, seeded
from sparse_rnn.scores import Criterion, Scores


class OneShotPruning(PruningCallback):
    """Prunes the recurrent weights of any LightningModule once, before training begins.

    When a fit starts, the module's own ``training_step`` is run on a few training samples to see what its recurrent
    layers receive; their weights are scored, and all but the best are set to 0 and kept there. Nothing else is
    changed: with ``sparsity=0`` a run is bit for bit the run without the callback. A resumed run takes its masks from
        the checkpoint.

    With several batches the scores are averaged, weighted by batch size; with several ranks every rank scores its own
    ``num_samples`` samples and the scores are averaged over ranks.

    Args:
        sparsity: Share of the weights to remove, at least 0 and below 1; exactly round((1 - sparsity)·n) of n stay.
        criterion: What scores the weights: a criterion or its name (``jacobian``, ``snip``, ``grasp``, ``synflow``,
            ``magnitude``, ``random``).
        num_samples: Number of training samples to score on (the paper: 64).
        kernels: Shell-style patterns of the names of the weights to prune, such as ``*weight_hh*``; by default the
            input and recurrent kernels of every recurrent layer.
        allocation: How the weights to keep are shared out: ``global`` ranks all kernels together (the paper),
            ``per_kernel`` and ``per_gate`` keep the same share of every kernel or gate.
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
        rounds: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(kernels)
        check_sparsity(sparsity)
        check_allocation(allocation)
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples}: give at least 1 (the paper: 64).")
        if rounds is not None and rounds < 1:
            raise ValueError(f"rounds={rounds}: give the number of times to score and prune, at least 1.")
        self.sparsity = sparsity
        self.criterion = as_criterion(criterion)
        self.num_samples = num_samples
        self.allocation = allocation
        self.rounds = self.criterion.rounds if rounds is None else rounds
        self.seed = seed

    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        """Scores the weights on training samples and keeps the best."""
        # Outside: setting up the loader draws from the global generators, as the fit would have done a moment later.
        trainer.fit_loop.setup_data()
        with isolate_rng():
            with seeded(self.seed):
                batches = training_batches(trainer, self.num_samples)
            with seeded(self.seed):  # as prune() does on the same samples
                return prune_in_rounds(
                    pl_module,
                    lambda: average_over_ranks(trainer, self._score(trainer, pl_module, batches)),
                    lambda scores, reached: rank(pl_module, scores, reached, self.allocation),
                    self.sparsity,
                    self.rounds,
                )

    def _score(self, trainer: Trainer, pl_module: LightningModule, batches: list[tuple[Any, int]]) -> Scores:
        loss_fn = training_loss(trainer)
        total: Scores = {}
        for batch, size in batches:
            scores = score_batch(pl_module, batch, self.criterion, loss_fn, self.kernels)
            for name, score in scores.items():
                share = score * (size / self.num_samples)
                total[name] = total[name] + share if name in total else share
        return total
