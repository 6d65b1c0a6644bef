"""Blocks: weights that are kept or removed together, so that a sparse product can read them together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparse_rnn.scores.criterion import check_choice
from sparse_rnn.sparsity.allocation import Gates, Group
from sparse_rnn.sparsity.masks import check_numbers, keep_in_groups
from sparse_rnn.sparsity.ranking import check_room, cut, diagonals

BlockScore = Literal["max", "mean_square"]


@dataclass(frozen=True)
class Blocks:
    """How the gates of a kernel are cut into blocks, from the upper left corner; those at the edges may be smaller.

    Args:
        height: Number of units.
        width: Number of inputs.
        score: ``max``, the largest score in a block, or ``mean_square``, the root of the mean of their squares.
    """

    height: int
    width: int
    score: BlockScore = "max"

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ValueError(f"block_size=({self.height}, {self.width}): give two sizes of at least 1.")
        check_choice("block_score", self.score, BlockScore)

    def of(self, gates_GUI: Tensor, fill: float) -> Tensor:
        """The weights of every block, [G, U / height, I / width, height·width], rounded up and filled up."""
        units, inputs = gates_GUI.shape[1:]
        padded = pad(gates_GUI, (0, -inputs % self.width, 0, -units % self.height), value=fill)
        tiles = padded.unflatten(2, (-1, self.width)).unflatten(1, (-1, self.height))
        return tiles.transpose(2, 3).flatten(3)

    def spread(self, blocks: Tensor, like_GUI: Tensor) -> Tensor:
        """Gives every weight the value of its block."""
        units, inputs = like_GUI.shape[1:]
        rows = blocks.repeat_interleave(self.height, 1)[:, :units]
        return rows.repeat_interleave(self.width, 2)[..., :inputs]

    def scores(self, scores_GUI: Tensor) -> Tensor:
        """The score of every block, over the scores above -inf in it; -inf where there is none."""
        tiles = self.of(scores_GUI, -torch.inf)
        if self.score == "max":
            return tiles.amax(3)
        there = tiles > -torch.inf
        mean = tiles.masked_fill(~there, 0).square().sum(3) / there.sum(3).clamp(min=1)
        return mean.sqrt().masked_fill(~there.any(3), -torch.inf)


def keep_best(
    scores: Mapping[str, Tensor],
    gates: Gates,
    groups: Sequence[Group],
    diagonal: Collection[str] = (),
    blocks: Blocks | None = None,
) -> dict[str, Tensor]:
    """Keeps the blocks with the largest scores, or single weights, as many of each group as it says.

    Args:
        scores: Parameter name to scores; -inf for weights that are removed already.
        gates: Parameter name to its gates.
        groups: How many weights are to stay where. Of blocks, as many as come nearest to that number of weights.
        diagonal: Parameter names of kernels, of whose square gates the diagonals stay, counted within the total. They
            belong to no block and do not raise the score of one (Valin and Skoglund 2019, LPCNet).
        blocks: Which weights belong together; None for single weights.

    Returns:
        Parameter name to mask.
    """
    if blocks is None:
        return keep_in_groups(scores, gates, groups, diagonal)
    check_numbers(scores)
    cut_scores = {name: cut(score, gates[name]) for name, score in scores.items()}
    keep = diagonals(cut_scores, diagonal)
    check_room(groups, keep)
    free = {name: score.masked_fill(keep[name], -torch.inf) for name, score in cut_scores.items()}
    ranked = {name: blocks.scores(score) for name, score in free.items()}
    sizes = {name: (blocks.of(score, -torch.inf) > -torch.inf).sum(3) for name, score in free.items()}
    for group in groups:
        taken = sum(int(keep[name][g].count_nonzero()) for name, g in group.blocks)
        chosen = _nearest(
            torch.cat([ranked[name][g].flatten() for name, g in group.blocks]),
            torch.cat([sizes[name][g].flatten() for name, g in group.blocks]),
            group.kept - taken,
        )
        parts = chosen.split([ranked[name][g].numel() for name, g in group.blocks])
        for (name, g), part in zip(group.blocks, parts, strict=True):
            block = part.view_as(ranked[name][g]).unsqueeze(0)
            keep[name][g] |= blocks.spread(block, keep[name][g].unsqueeze(0))[0]
    return {name: mask.view_as(scores[name]) for name, mask in keep.items()}


def _nearest(scores: Tensor, sizes: Tensor, wanted: int) -> Tensor:
    """Mask of the best blocks, as many as hold nearest to ``wanted`` weights; of two equally near numbers the smaller.

    The earlier of equal scores wins.
    """
    order = scores.argsort(descending=True, stable=True)
    reached = torch.cat([sizes.new_zeros(1), sizes[order].cumsum(0)])
    count = int((reached - wanted).abs().argmin())
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen
