"""Regrowth: while a network is trained, the smallest of its weights make room for removed ones."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from sparse_rnn.callbacks.borrowing.samples import average_over_ranks
from sparse_rnn.callbacks.scheduled import Update
from sparse_rnn.errors import check_choice
from sparse_rnn.sparsity.growth import random_scores
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Selection

Growth = Literal["gradient", "random"]
Redistribution = Literal["kernel", "gate"]


class Regrowth:
    """Drop the smallest weights (by |w|) of each kernel and grow as many others, at the updates of a callback.

    Args:
        growth: Which weights grow: those with the largest gradients, or random ones.
        redistribution: Within what weights move: each kernel, over its gates, or each gate of each kernel.
        seed: Seed of random growth.

    Raises:
        UsageError: If a choice is unknown.
    """

    def __init__(self, growth: Growth, redistribution: Redistribution, seed: int) -> None:
        check_choice("growth", growth, Growth)
        check_choice("redistribution", redistribution, Redistribution)
        self.growth, self.redistribution, self.seed = growth, redistribution, seed
        self._gradients: dict[str, Tensor] = {}

    @property
    def needs_gradients(self) -> bool:
        """Whether weights grow by the gradients that :meth:`collect` is to see before."""
        return self.growth == "gradient"

    def forget(self) -> None:
        """Let go of gradients that no update followed."""
        self._gradients = {}

    def collect(self, pl_module: LightningModule, masks: Masks) -> None:
        """Keep the gradients of all weights of a backward pass, before they are masked, for the update that follows."""
        if not self.needs_gradients:
            return
        for name, mask in masks.items():
            gradient = pl_module.get_parameter(name).grad
            if gradient is not None:
                gradient = gradient.to_dense()  # an embedding may have a sparse one
                # What earlier backward passes of the batch gave the removed weights is masked in it already.
                before = self._gradients.get(name, torch.zeros_like(gradient)).masked_fill(mask, 0)
                self._gradients[name] = before + gradient

    def moved(self, selection: Selection, update: Update) -> Masks | None:
        """Return the masks after an update, whose share is that of the kept weights that move.

        None where not all scores are finite, so that nothing can be said of them.
        """
        growth, worth = self._scores(update), update.magnitudes()
        if not all(score.isfinite().all() for scores in (growth, worth) for score in scores.values()):
            return None
        return selection.moved(update.kernels, update.masks, worth, growth, update.share, self.redistribution == "gate")

    def _scores(self, update: Update) -> dict[str, Tensor]:
        """Return scores that are equal on all ranks; a kernel that no loss depended on has none."""
        if not self.needs_gradients:
            masks = enumerate(update.masks.items())
            return {name: random_scores(mask, self.seed, update.step, i) for i, (name, mask) in masks}
        gradients, self._gradients = self._gradients, {}
        # DDP has averaged them, unless a project has kept it from that in manual optimisation.
        return {name: gradient.abs() for name, gradient in average_over_ranks(update.trainer, gradients).items()}
