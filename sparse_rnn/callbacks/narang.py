"""Narang's pruning: weights below a threshold that rises while the network is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from sparse_rnn.callbacks.base import SPARSE
from sparse_rnn.callbacks.scheduled import ScheduledPruning, Update
from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.checks import check_number
from sparse_rnn.engine.live import EngineKind
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.options import described
from sparse_rnn.pruning.schedules import NarangRamp
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.sparsity.allocation import Allocation, GateOf, Rule
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Selection
from sparse_rnn.sparsity.tiles import TileScore

PERCENTILE = 0.9


@described
class NarangPruning(ScheduledPruning):
    """Remove recurrent weights whose |w| is below a threshold that rises during training (Narang et al. 2017).

    The schedule gives the course of the threshold, its height comes from one of three: ``q`` or ``theta``, as in the
    paper, where the final sparsity is what comes of it; or ``sparsity``, which solves for θ: at every update the slope
    is the one with which the last threshold leaves (1 - sparsity)·n of n weights if they stay as they are, so that
    the threshold follows the weights as they change, and the last update reaches the sparsity exactly. What is removed
    never comes back. Biases stay.

    Args:
        sparsity: Share of the weights that are removed in the end, at least 0 and below 1; null where ``q`` or
            ``theta`` is given.
        q: The 90th percentile of |w| in a dense network that was trained, from which θ follows by the paper's rule; or
            the path of a checkpoint of such a network, from which q is computed when the first fit starts.
        theta: θ itself, the rise of the threshold in ``schedule.frequency`` steps.
        schedule: Start, ramp, end, frequency and φ / θ: :class:`sparse_rnn.pruning.schedules.NarangRamp`.
        allocation: What has a threshold of its own: ``global``, all kernels have one; ``per_kernel``; ``per_gate``;
            ``erk``, each kernel, with the densities of :class:`OneShotPruning`; or with ``sparsity`` a mapping of
            densities, as there.
    """

    schedules = NarangRamp

    def __init__(
        self,
        sparsity: float | None = None,
        q: float | str | None = None,
        theta: float | None = None,
        schedule: NarangRamp = NarangRamp(),  # noqa: B008 - frozen, and shown by --help
        kernels: Sequence[str] | None = None,
        allocation: Allocation = "global",
        keep_diagonal: bool = False,
        block_size: tuple[int, int] | None = None,
        block_score: TileScore = "max",
        min_kept: int = 0,
        engine: EngineKind = "auto",
    ) -> None:
        given = [value for value in (sparsity, q, theta) if value is not None]
        if len(given) != 1:
            raise UsageError(
                f"sparsity={sparsity}, q={q}, theta={theta}: give exactly one of sparsity, which solves for θ, q, the "
                "90th percentile of |w| of a trained dense network or its checkpoint, and theta, and null for the rest."
            )
        if not isinstance(q, str):
            check_number("q", q, "[0, inf)", "the 90th percentile of |w|", optional=True, hint="or a checkpoint")
        check_number("theta", theta, "[0, inf)", optional=True)
        if sparsity is None and isinstance(allocation, Mapping):
            raise UsageError(
                f"allocation={allocation}: densities are those of the final sparsity, which q and theta leave open; "
                f"give sparsity, or one of {', '.join(get_args(Rule))}."
            )
        selection = Selection.of(
            0.0 if sparsity is None else sparsity, allocation, keep_diagonal, min_kept, block_size, block_score
        )
        super().__init__(schedule, selection, kernels, engine)
        self.sparsity = sparsity
        self.q = q
        self.theta = theta
        self.schedule_in_steps: NarangRamp = schedule
        self._thetas: dict[GateOf, float] = {}
        self._quantiles: list[float] = []
        self._quantiles_of: float | str | None = None  # the q that they were computed from

    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        """Keep everything: training begins dense."""
        masks = super().find_masks(trainer, pl_module)
        self._quantiles, self._quantiles_of = self._quantiles_of_groups(masks.kernels), self.q
        return masks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turn shares of the training into steps, and q into θ."""
        super().on_train_start(trainer, pl_module)
        if self.masks is not None and not self._has_quantiles(self.masks.kernels):  # of a run with other settings
            self._quantiles, self._quantiles_of = self._quantiles_of_groups(self.masks.kernels), self.q
        if self.sparsity is None and self.masks is not None and self._planned:
            self._thetas = self._given_thetas(self.masks.kernels)
            rank_zero_info(f"NarangPruning: {self._slopes()}; the final sparsity is what comes of it.")

    def change(self, update: Update) -> Masks:
        """Remove what lies below the threshold."""
        if self.sparsity is not None:
            return self._towards(update, self.sparsity)
        ramp = self.schedule_in_steps  # the training may turn out to be of another length than it seemed
        step, self._thetas = min(update.step, ramp.last_update), self._given_thetas(update.kernels)
        thresholds = {gate: ramp.threshold(step, theta) for gate, theta in self._thetas.items()}
        return self.selection.above(update.kernels, update.magnitudes(), update.masks, thresholds)

    def _towards(self, update: Update, sparsity: float) -> Masks:
        """Keep what is left above the threshold that leads to the sparsity from the weights as they are."""
        ramp, step, before = self.schedule_in_steps, update.step, update.masks
        height = ramp.threshold(ramp.last_update)
        masks, final = self.selection.towards(update.kernels, update.magnitudes(), before, update.share)
        self._thetas = {gate: threshold / height for gate, threshold in final.items()}
        if step >= ramp.last_update or before.kept == before.total:
            rank_zero_info(
                f"NarangPruning: sparsity {masks.sparsity:.4f} after step {step:,}; as the weights are now, "
                f"{self._slopes()} give {sparsity} after step {ramp.last_update:,}."
            )
        return masks

    def extra_state(self) -> dict[str, Any]:
        """Return the q of every group, so that a resumed run does without the dense checkpoint."""
        return {"quantiles": self._quantiles, "q": self._quantiles_of}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`extra_state` gave."""
        quantiles = state.get("quantiles")
        if not isinstance(quantiles, list) or not all(isinstance(q, (int, float)) and q >= 0 for q in quantiles):
            raise UsageError(f"Its quantiles {str(quantiles)[:60]!r} are no numbers of at least 0.")
        self._quantiles, self._quantiles_of = quantiles, state.get("q", self.q)

    def _given_thetas(self, kernels: Targets) -> dict[GateOf, float]:
        """θ of every gate where it does not depend on how the weights change."""
        groups = self.selection.groups(kernels)
        if self.theta is None:
            thetas = [self.schedule_in_steps.theta(q) for q in self._quantiles]
        else:
            thetas = [self.theta] * len(groups)
        return {gate: theta for group, theta in zip(groups, thetas, strict=True) for gate in group.gates}

    def _has_quantiles(self, kernels: Targets) -> bool:
        """Tell whether the q of every group is there, and follows from what is asked for."""
        count = 0 if self.q is None else len(self.selection.groups(kernels))
        return self._quantiles_of == self.q and len(self._quantiles) == count

    def _quantiles_of_groups(self, kernels: Targets) -> list[float]:
        """Find the q of every group; none where θ or the sparsity is given."""
        groups = self.selection.groups(kernels)
        if not isinstance(self.q, str):
            return [] if self.q is None else [self.q] * len(groups)
        by_gate = {name: kernels[name].by_gate(weight) for name, weight in _checkpoint(self.q, kernels).items()}
        return [_percentile(torch.cat([by_gate[name][g].flatten() for name, g in group.gates])) for group in groups]

    def _slopes(self) -> str:
        lowest, highest = min(self._thetas.values()), max(self._thetas.values())
        theta = f"{lowest:.4g}" if lowest == highest else f"{lowest:.4g} to {highest:.4g}"
        return f"θ = {theta}, φ = {self.schedule_in_steps.acceleration:g}·θ"


def _checkpoint(path: str, kernels: Targets) -> dict[str, Tensor]:
    """Weights of a checkpoint, by their names in the model."""
    weights = load_checkpoint(path)["state_dict"]
    for name, kernel in kernels.items():
        if name not in weights:
            raise UsageError(f"q={path}: the checkpoint has no {name}; give one of the same model, trained dense.")
        if weights[name].shape != kernel.shape:
            raise UsageError(
                f"q={path}: {name} is {tuple(weights[name].shape)} in the checkpoint and {tuple(kernel.shape)} in the "
                "model; give one of the same model, trained dense."
            )
        if not weights[name].isfinite().all():
            raise UsageError(f"q={path}: {name} has weights that are not finite; give a checkpoint from before them.")
    found = {name: weights[name] for name in kernels}
    zeros = sum(int((weight == 0).sum()) for weight in found.values())
    total = sum(weight.numel() for weight in found.values())
    if zeros > SPARSE * total:
        raise UsageError(
            f"q={path}: {zeros / total:.1%} of its weights to prune are 0, so that their 90th percentile says nothing "
            "of a dense network; give a checkpoint of one that was trained dense."
        )
    return found


def _percentile(weights: Tensor) -> float:
    """Return the 90th percentile of |w|, a value among them."""
    return float(weights.abs().kthvalue(ceil(PERCENTILE * weights.numel())).values)
