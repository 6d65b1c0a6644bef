"""Thinning: which of the weights that are left go next, never to come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse_rnn.recurrent.layers import gates_of, state_kernels
from sparse_rnn.sparsity.allocation import Allocation, Block, Group, allocate
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.ranking import Cut, cut, diagonals
from sparse_rnn.sparsity.tiles import Blocks, keep_best


@dataclass(frozen=True)
class Thinning:
    """Chooses among the weights of a model that are left.

    Attributes:
        sparsity: Share of the weights that are removed in the end.
        allocation: How those that stay are shared out; weights of a group are ranked together.
        keep_diagonal: Whether the diagonals of the recurrent kernels stay.
        blocks: Which weights go together; None for single weights.
    """

    sparsity: float
    allocation: Allocation = "global"
    keep_diagonal: bool = False
    blocks: Blocks | None = None

    def check(self, module: nn.Module, masks: Mapping[str, Tensor]) -> None:
        """Refuses what cannot be reached in the end with a ValueError, before time is spent on it."""
        self.best(module, masks, {name: mask.float() for name, mask in masks.items()}, 1.0)

    def best(self, module: nn.Module, masks: Mapping[str, Tensor], scores: Mapping[str, Tensor], share: float) -> Masks:
        """Keeps the best, every group having lost a share of what it is to lose in the end.

        Args:
            module: The model.
            masks: The weights that are left.
            scores: Their scores; those of other weights are not looked at.
            share: From 0, nothing is removed, to 1, ``sparsity`` is reached.
        """
        left = _left(scores, masks)
        groups = [group.partly(share) for group in self.groups(module, masks)]
        keep = keep_best(left, gates_of(module, masks), groups, self._diagonal(module), self.blocks)
        return Masks({name: keep[name] & mask for name, mask in masks.items()}, module)

    def above(
        self,
        module: nn.Module,
        masks: Mapping[str, Tensor],
        scores: Mapping[str, Tensor],
        thresholds: Mapping[Block, float],
    ) -> Masks:
        """Keeps what scores above the threshold of its gate, and the diagonals that are to stay.

        Args:
            module: The model.
            masks: The weights that are left.
            scores: Their scores; a weight of a block goes by the score of the block.
            thresholds: Parameter name and index of the gate to threshold, of every gate.
        """
        ranked = self._ranked(module, masks, scores)
        keep = diagonals(ranked, self._diagonal(module))
        for (name, g), threshold in thresholds.items():
            keep[name][g] |= ranked[name][g] > threshold
        return Masks({name: keep[name].view_as(mask) & mask for name, mask in masks.items()}, module)

    def on_the_way(
        self, module: nn.Module, masks: Mapping[str, Tensor], scores: Mapping[str, Tensor], fraction: float
    ) -> tuple[Masks, dict[Block, float]]:
        """Keeps what scores above a fraction of the final threshold of its group, the diagonals and the final weights.

        Args:
            module: The model.
            masks: The weights that are left.
            scores: Their scores, at least 0.
            fraction: From 0 to 1, where ``sparsity`` is reached.

        Returns:
            The masks, and for every gate the threshold that leaves the final number of weights in its group.
        """
        final = self.best(module, masks, scores, 1.0)
        ranked, gates = self._ranked(module, masks, scores), gates_of(module, masks)
        kept = {name: cut(mask, gates[name]) for name, mask in final.items()}
        thresholds: dict[Block, float] = {}
        for group in self.groups(module, masks):
            removed = [ranked[name][g].masked_fill(kept[name][g], 0).amax().clamp(min=0) for name, g in group.blocks]
            thresholds |= dict.fromkeys(group.blocks, float(torch.stack(removed).max()))
        above = self.above(module, masks, scores, {gate: fraction * value for gate, value in thresholds.items()})
        return Masks({name: above[name] | mask for name, mask in final.items()}, module), thresholds

    def groups(self, module: nn.Module, masks: Mapping[str, Tensor]) -> list[Group]:
        """The groups of the allocation, as they are in the end."""
        shapes = {name: mask.shape for name, mask in masks.items()}
        return allocate(shapes, gates_of(module, masks), self.sparsity, self.allocation)

    def _ranked(self, module: nn.Module, masks: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> Cut:
        """What every weight that is left goes by; -inf for the others, and for diagonals in front of blocks."""
        gates = gates_of(module, masks)
        left = {name: cut(score, gates[name]) for name, score in _left(scores, masks).items()}
        if self.blocks is None:
            return left
        kept = diagonals(left, self._diagonal(module))
        left = {name: score.masked_fill(kept[name], -torch.inf) for name, score in left.items()}
        return {name: self.blocks.spread(self.blocks.scores(score), score) for name, score in left.items()}

    def _diagonal(self, module: nn.Module) -> list[str]:
        return state_kernels(module) if self.keep_diagonal else []


def _left(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: score.masked_fill(~masks[name], -torch.inf) for name, score in scores.items()}
