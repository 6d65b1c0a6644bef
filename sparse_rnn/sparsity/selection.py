"""Selection: which weights stay, given their scores and a share of the way to the final sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sparse_rnn.checks import items_of
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.sparsity.allocation import Allocation, GateOf, Group, allocate, check_allocation, check_sparsity
from sparse_rnn.sparsity.growth import drop_and_grow
from sparse_rnn.sparsity.guards import Guards, check_room, diagonals, reserve_
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.ranking import ByGate, check_numbers, empty, fill_
from sparse_rnn.sparsity.tiles import Tiles, TileScore, nearest

Scores = Mapping[str, Tensor]


@dataclass(frozen=True)
class Selection:
    """Choose the weights that stay; the same for every way of pruning.

    Args:
        sparsity: Share of the weights that are removed in the end, in [0, 1).
        allocation: How those that stay are shared out among groups; the weights of a group are ranked together. See
            :func:`sparse_rnn.sparsity.allocate`.
        structure: The tiles that are kept or removed as one; None for single weights.
        guards: Weights that stay whatever the others score, counted within the total.

    Raises:
        UsageError: If a value is out of range.

    Example:
        >>> from sparse_rnn.recurrent import find_targets
        >>> targets = find_targets(torch.nn.GRU(3, 4))
        >>> scores = {name: kernel.parameter.detach().abs() for name, kernel in targets.items()}
        >>> selection = Selection(0.75, "per_kernel", guards=Guards(keep_diagonal=True))
        >>> selection.best(targets, scores)
        Masks(2 kernels, 21 of 84 weights kept, sparsity 0.7500)
        >>> selection.best(targets, scores, share=0.5)
        Masks(2 kernels, 52 of 84 weights kept, sparsity 0.3810)
    """

    sparsity: float
    allocation: Allocation = "global"
    structure: Tiles | None = None
    guards: Guards = field(default_factory=Guards)

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_allocation(self.allocation)

    @classmethod
    def of(
        cls,
        sparsity: float,
        allocation: Allocation = "global",
        keep_diagonal: bool = False,
        min_kept: int = 0,
        block_size: tuple[int, int] | None = None,
        block_score: TileScore = "max",
    ) -> Selection:
        """Build a selection from the options that :func:`sparse_rnn.prune` and the callbacks take."""
        tiles = None
        if block_size is not None:
            height, width = items_of("block_size", block_size, 2)
            tiles = Tiles(height, width, block_score)
        return cls(sparsity, allocation, tiles, Guards(keep_diagonal, min_kept))

    def groups(self, kernels: Targets, share: float = 1.0, geometric: bool = False) -> list[Group]:
        """Return the groups of the allocation, with the numbers of weights that they keep on the way.

        Args:
            kernels: The kernels to prune.
            share: From 0, nothing is removed, to 1, the final sparsity.
            geometric: See :meth:`sparse_rnn.sparsity.allocation.Group.on_the_way`.
        """
        return [group.on_the_way(share, geometric) for group in allocate(kernels, self.sparsity, self.allocation)]

    def check(self, kernels: Targets) -> None:
        """Refuse what cannot be reached in the end with a UsageError, before time is spent on it."""
        self.best(kernels, {name: torch.ones_like(kernel.parameter).detach() for name, kernel in kernels.items()})

    def best(
        self,
        kernels: Targets,
        scores: Scores,
        masks: Mapping[str, Tensor] | None = None,
        share: float = 1.0,
        geometric: bool = False,
    ) -> Masks:
        """Keep the weights with the largest scores, as many of every group as are to be left on the way.

        Exactly round(density · n) of the n weights of a group stay; of tiles as many as come nearest to that number.
        Of equal scores the earlier weight stays.

        Args:
            kernels: The kernels to prune.
            scores: Name to scores, one for each weight.
            masks: The weights that are left; others do not come back. All of them if not given.
            share: Share of the way, from 0, nothing is removed, to 1, the final sparsity.
            geometric: See :meth:`sparse_rnn.sparsity.allocation.Group.on_the_way`.

        Raises:
            UsageError: If values contradict each other, or a score is not a number.
        """
        check_numbers(scores)
        groups = self.groups(kernels, share, geometric)
        left = self._left(kernels, scores, masks)
        keep = self._guarded(kernels, left, groups)
        for group in groups:
            self._fill_(group, keep, left)
        return self._masks(kernels, keep, masks)

    def above(
        self, kernels: Targets, scores: Scores, masks: Mapping[str, Tensor], thresholds: Mapping[GateOf, float]
    ) -> Masks:
        """Keep what scores above the threshold of its gate, and what the guards keep.

        Args:
            kernels: The kernels to prune.
            scores: Name to scores; a weight of a tile goes by the score of the tile.
            masks: The weights that are left.
            thresholds: The threshold of every gate.

        Raises:
            UsageError: If a score is not a number.
        """
        check_numbers(scores)
        unlimited = [replace(group, density=1.0) for group in allocate(kernels, 0.0, "global")]
        left = self._left(kernels, scores, masks)
        keep = self._guarded(kernels, left, unlimited)
        self._add_above_(keep, self._ranked(kernels, left), thresholds)
        return self._masks(kernels, keep, masks)

    def towards(
        self, kernels: Targets, scores: Scores, masks: Mapping[str, Tensor], fraction: float
    ) -> tuple[Masks, dict[GateOf, float]]:
        """Keep what scores above a fraction of the final threshold of its group, and what stays in the end anyway.

        Args:
            kernels: The kernels to prune.
            scores: Name to scores, at least 0.
            masks: The weights that are left.
            fraction: From 0 to 1, where the final sparsity is reached.

        Returns:
            The masks, and for every gate the threshold that leaves the final number of weights in its group.
        """
        final = self.best(kernels, scores, masks)
        keep = {name: kernels[name].by_gate(mask).clone() for name, mask in final.items()}
        ranked = self._ranked(kernels, self._left(kernels, scores, masks))
        thresholds: dict[GateOf, float] = {}
        for group in self.groups(kernels):
            removed = [ranked[name][g].masked_fill(keep[name][g], 0).amax().clamp(min=0) for name, g in group.gates]
            thresholds |= dict.fromkeys(group.gates, float(torch.stack(removed).max()))
        self._add_above_(keep, ranked, {gate: fraction * value for gate, value in thresholds.items()})
        return self._masks(kernels, keep, masks), thresholds

    def moved(
        self,
        kernels: Targets,
        masks: Mapping[str, Tensor],
        worth: Scores,
        growth: Scores,
        share: float,
        within_gates: bool = False,
    ) -> Masks:
        """Drop some of the weights, or tiles, that are kept, and grow as many others; diagonals that are kept stay.

        Args:
            kernels: The kernels that are pruned.
            masks: The weights that are kept.
            worth: Name to scores; the smallest are dropped.
            growth: Name to scores; the largest are grown. A kernel without any stays as it is.
            share: Share of the kept weights, or tiles, to drop, in [0, 1].
            within_gates: Whether each gate keeps its number, not only each kernel.

        Raises:
            UsageError: If a score is not a number.
        """
        check_numbers(worth)
        check_numbers(growth)
        diagonal = self.diagonals(kernels, {name: kernels[name].by_gate(mask) for name, mask in masks.items()})
        moved = dict(masks)
        for name, scores in growth.items():
            by_gate = kernels[name].by_gate
            tensors = by_gate(masks[name]), by_gate(worth[name]), by_gate(scores)
            parts = len(kernels[name].gates) if within_gates else 1
            moved[name] = self._moved(*tensors, diagonal[name], share, parts).reshape(masks[name].shape)
        return Masks.of(kernels, moved)

    def _moved(self, mask: Tensor, worth: Tensor, growth: Tensor, diagonal: Tensor, share: float, parts: int) -> Tensor:
        if self.structure is None:
            return drop_and_grow(mask, worth.masked_fill(diagonal, torch.inf), growth, share, parts)
        scores = [self.structure.scores(values.masked_fill(diagonal, -torch.inf)) for values in (worth, growth)]
        tiles = self.structure.of((mask & ~diagonal).float(), 0).amax(3) > 0
        empty = ~tiles & (scores[0] == -torch.inf)  # nothing but a diagonal, or beyond the kernel
        tiles = drop_and_grow(tiles | empty, scores[0].masked_fill(empty, torch.inf), scores[1], share, parts)
        return self.structure.spread(tiles, mask) & ~diagonal | diagonal

    def diagonals(self, kernels: Targets, like: ByGate) -> dict[str, Tensor]:
        """Return masks [gates, units, inputs] that keep the diagonals that the guards keep; none if they keep none."""
        if self.guards.keep_diagonal:
            return diagonals(like, [name for name, kernel in kernels.items() if kernel.reads_state])
        return empty(like)

    def _left(self, kernels: Targets, scores: Scores, masks: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the scores [gates, units, inputs] of the weights that are left; -inf for the others."""
        kept = {} if masks is None else masks
        masked = {name: s.masked_fill(~kept[name], -torch.inf) if name in kept else s for name, s in scores.items()}
        return {name: kernels[name].by_gate(score) for name, score in masked.items()}

    def _masks(self, kernels: Targets, keep: ByGate, before: Mapping[str, Tensor] | None) -> Masks:
        """Masks of the kernels' shapes, in which nothing comes back."""
        flat = {name: mask.reshape(kernels[name].shape) for name, mask in keep.items()}
        return Masks.of(kernels, flat if before is None else {name: m & before[name] for name, m in flat.items()})

    def _ranked(self, kernels: Targets, left: ByGate) -> dict[str, Tensor]:
        """Return what every weight goes by: its own score or that of its tile; -inf for diagonals beside tiles."""
        if self.structure is None:
            return dict(left)
        kept = self.diagonals(kernels, left)
        free = {name: score.masked_fill(kept[name], -torch.inf) for name, score in left.items()}
        return {name: self.structure.spread(self.structure.scores(score), score) for name, score in free.items()}

    def _guarded(self, kernels: Targets, left: ByGate, groups: list[Group]) -> dict[str, Tensor]:
        """Masks of what the guards keep."""
        keep = self.diagonals(kernels, left)
        check_room(groups, keep)
        if not self.guards.min_kept:
            return keep
        diagonal = {name: mask.clone() for name, mask in keep.items()}
        reserve_(keep, self._ranked(kernels, left), groups, self.guards.min_kept)
        if self.structure is not None:
            for name, mask in keep.items():
                tiles = self.structure.whole(mask & ~diagonal[name])
                keep[name] = diagonal[name] | tiles & (left[name] > -torch.inf)
            self._check_tiles(groups, keep)
        return keep

    def _check_tiles(self, groups: list[Group], keep: ByGate) -> None:
        for group in groups:
            reserved = sum(int(keep[name][g].count_nonzero()) for name, g in group.gates)
            if reserved > group.kept:
                raise UsageError(
                    f"min_kept={self.guards.min_kept} keeps whole tiles, {reserved} weights of {group.name}, but only "
                    f"{group.kept} of {group.total} are to stay there: lower min_kept, block_size or the sparsity."
                )

    def _fill_(self, group: Group, keep: ByGate, left: ByGate) -> None:
        """Add the best weights or tiles of a group to masks, in place, until it keeps its number."""
        masks, scores = ([tensors[name][g] for name, g in group.gates] for tensors in (keep, left))
        if self.structure is None:
            fill_(masks, scores, group.kept)
            return
        free = [score.masked_fill(mask, -torch.inf).unsqueeze(0) for mask, score in zip(masks, scores, strict=True)]
        ranked = [self.structure.scores(score) for score in free]
        sizes = [(self.structure.of(score, -torch.inf) > -torch.inf).sum(3) for score in free]
        chosen = nearest(
            torch.cat([score.flatten() for score in ranked]),
            torch.cat([size.flatten() for size in sizes]),
            group.kept - sum(int(mask.count_nonzero()) for mask in masks),
        )
        for mask, tiles, part in zip(masks, ranked, chosen.split([r.numel() for r in ranked]), strict=True):
            mask |= self.structure.spread(part.view_as(tiles), mask.unsqueeze(0))[0]

    @staticmethod
    def _add_above_(keep: ByGate, ranked: ByGate, thresholds: Mapping[GateOf, float]) -> None:
        for (name, g), threshold in thresholds.items():
            keep[name][g] |= ranked[name][g] > threshold
