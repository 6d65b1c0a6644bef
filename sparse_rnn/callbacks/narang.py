"""Narang's pruning: weights below a threshold that rises while the network is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from sparse_rnn.callbacks.base import PruningCallback, training_steps, warn_of_end
from sparse_rnn.checkpoints import load_checkpoint
from sparse_rnn.pruning.schedules import NarangRamp
from sparse_rnn.recurrent.layers import gates_of, select_kernels
from sparse_rnn.sparsity.allocation import Block, Rule, check_allocation, check_sparsity
from sparse_rnn.sparsity.masks import Masks, emptied
from sparse_rnn.sparsity.ranking import cut
from sparse_rnn.sparsity.selection import Thinning
from sparse_rnn.sparsity.tiles import Blocks, BlockScore

PERCENTILE = 0.9


class NarangPruning(PruningCallback):
    """Removes recurrent weights whose |w| is below a threshold that rises during training (Narang et al. 2017).

    The schedule gives the course of the threshold, its height comes from one of three: ``q`` or ``theta``, as in the
    paper, where the final sparsity is what comes of it; or ``sparsity``, which solves for θ: at every update the slope
    is the one with which the last threshold leaves (1 - sparsity)·n of n weights if they stay as they are, so that
    the threshold follows the weights as they change, and the last update reaches the sparsity exactly. What is removed
    never comes back. Biases stay.

    Args:
        sparsity: Share of the weights that are removed in the end, at least 0 and below 1.
        q: The 90th percentile of |w| in a dense network that was trained, from which θ follows by the paper's rule; or
            the path of a checkpoint of such a network, from which q is computed when the first fit starts.
        theta: θ itself, the rise of the threshold in ``schedule.frequency`` steps.
        schedule: Start, ramp, end, frequency and φ / θ: :class:`sparse_rnn.pruning.schedules.NarangRamp`.
        kernels: Shell-style patterns of the names of the weights to prune; by default the input and recurrent kernels
            of every recurrent layer.
        allocation: What has a threshold of its own: ``global``, all kernels have one; ``per_kernel``; ``per_gate``;
            ``erk``, each kernel, with the densities of :class:`OneShotPruning`.
        keep_diagonal: Whether the diagonal of every gate of the recurrent kernels (``weight_hh``, ``weight_ch``) always
            stays, counted within the total.
        block_size: Units and inputs of the blocks that are kept or removed as one, such as (4, 8) (block-sparse
            recurrent networks, Narang et al. 2017b); see :class:`GradualPruning`.
        block_score: What of a block is compared with the threshold: ``max``, its largest |w| (the paper), or
            ``mean_square``, the root of the mean of w².
    """

    def __init__(
        self,
        sparsity: float | None = None,
        q: float | str | None = None,
        theta: float | None = None,
        schedule: NarangRamp = NarangRamp(),  # noqa: B008 - frozen, and shown by --help
        kernels: Sequence[str] | None = None,
        allocation: Rule = "global",
        keep_diagonal: bool = False,
        block_size: tuple[int, int] | None = None,
        block_score: BlockScore = "max",
    ) -> None:
        super().__init__(kernels)
        given = [value for value in (sparsity, q, theta) if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"sparsity={sparsity}, q={q}, theta={theta}: give exactly one of sparsity, which solves for θ, q, the "
                "90th percentile of |w| of a trained dense network or its checkpoint, and theta, and null for the rest."
            )
        if not isinstance(given[0], str) and given[0] < 0:
            raise ValueError(f"sparsity={sparsity}, q={q}, theta={theta}: give a number of at least 0.")
        check_sparsity(sparsity or 0.0)
        check_allocation(allocation)
        blocks = None if block_size is None else Blocks(*block_size, block_score)
        self.sparsity = sparsity
        self.q = q
        self.theta = theta
        self.thinning = Thinning(sparsity or 0.0, allocation, keep_diagonal, blocks)
        self.schedule = schedule
        self.schedule_in_steps = schedule
        self._thetas: dict[Block, float] = {}
        self._quantiles: list[float] = []

    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        """Keeps everything: training begins dense."""
        masks = Masks.full(pl_module, select_kernels(pl_module, self.kernels))
        self.thinning.check(pl_module, masks)
        if self.sparsity is None:
            self._quantiles = self._quantiles_of_groups(pl_module, masks)
        return masks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turns shares of the training into steps, and q into θ."""
        super().on_train_start(trainer, pl_module)
        total = training_steps(trainer)
        self.schedule_in_steps = self.schedule.over(total)
        warn_of_end(self, self.schedule_in_steps.last_update, total)
        if self.sparsity is None and self.masks is not None:
            self._thetas = self._given_thetas(pl_module, self.masks)
            rank_zero_info(f"NarangPruning: {self._slopes()}; the final sparsity is what comes of it.")

    def update_masks(self, trainer: Trainer, pl_module: LightningModule, step: int, batch: Any) -> Masks | None:
        """Removes what lies below the threshold, at the updates of the schedule."""
        ramp = self.schedule_in_steps
        if self.masks is None or not ramp.updates_at(step):
            return None
        sizes = {name: pl_module.get_parameter(name).detach().abs() for name in self.masks}
        if self.sparsity is None:
            thresholds = {gate: ramp.threshold(step, theta) for gate, theta in self._thetas.items()}
            masks = self.thinning.above(pl_module, self.masks, sizes, thresholds)
        else:
            masks = self._on_the_way(pl_module, self.masks, sizes, self.sparsity, step)
        if step == ramp.last_update and (message := emptied(masks, gates_of(pl_module, masks))):
            rank_zero_warn(message)
        return masks

    def _on_the_way(
        self, pl_module: LightningModule, masks: Masks, sizes: dict[str, Tensor], sparsity: float, step: int
    ) -> Masks:
        """What is left above the threshold that leads to the sparsity from the weights as they are."""
        ramp, dense = self.schedule_in_steps, masks.kept == masks.total
        height = ramp.threshold(ramp.last_update)
        masks, final = self.thinning.on_the_way(pl_module, masks, sizes, ramp.threshold(step) / height)
        self._thetas = {gate: threshold / height for gate, threshold in final.items()}
        if step == ramp.last_update or dense:
            rank_zero_info(
                f"NarangPruning: sparsity {masks.sparsity:.4f} after step {step:,}; as the weights are now, "
                f"{self._slopes()} give {sparsity} after step {ramp.last_update:,}."
            )
        return masks

    def extra_state(self) -> dict[str, Any]:
        """The q of every group, so that a resumed run does without the dense checkpoint."""
        return {"quantiles": self._quantiles}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`extra_state` gave."""
        self._quantiles = state["quantiles"]

    def _given_thetas(self, pl_module: LightningModule, masks: Masks) -> dict[Block, float]:
        """θ of every gate where it does not depend on how the weights change."""
        groups = self.thinning.groups(pl_module, masks)
        thetas = [self.schedule_in_steps.theta(q) for q in self._quantiles] or [self.theta or 0.0] * len(groups)
        return {gate: theta for group, theta in zip(groups, thetas, strict=True) for gate in group.blocks}

    def _quantiles_of_groups(self, pl_module: LightningModule, masks: Masks) -> list[float]:
        """The q of every group; none where θ is given."""
        groups = self.thinning.groups(pl_module, masks)
        if not isinstance(self.q, str):
            return [] if self.q is None else [self.q] * len(groups)
        weights, gates = _checkpoint(self.q, masks), gates_of(pl_module, masks)
        gated = {name: cut(weight, gates[name]) for name, weight in weights.items()}
        return [_percentile(torch.cat([gated[name][g].flatten() for name, g in x.blocks])) for x in groups]

    def _slopes(self) -> str:
        lowest, highest = min(self._thetas.values()), max(self._thetas.values())
        theta = f"{lowest:.4g}" if lowest == highest else f"{lowest:.4g} to {highest:.4g}"
        return f"θ = {theta}, φ = {self.schedule.acceleration:g}·θ"


def _checkpoint(path: str, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a checkpoint, by their names in the model."""
    weights = load_checkpoint(Path(path))["state_dict"]
    for name, mask in masks.items():
        if name not in weights:
            raise ValueError(f"q={path}: the checkpoint has no {name}; give one of the same model, trained dense.")
        if weights[name].shape != mask.shape:
            raise ValueError(
                f"q={path}: {name} is {tuple(weights[name].shape)} in the checkpoint and {tuple(mask.shape)} in the "
                "model; give one of the same model, trained dense."
            )
    return {name: weights[name] for name in masks}


def _percentile(weights: Tensor) -> float:
    """The 90th percentile of |w|, a value among them."""
    return float(weights.abs().kthvalue(ceil(PERCENTILE * weights.numel())).values)
