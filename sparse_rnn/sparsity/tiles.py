"""Tiles: weights that are kept or removed together, so that a sparse product can read them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparse_rnn.checks import check_whole
from sparse_rnn.errors import UsageError, check_choice

TileScore = Literal["max", "mean_square"]


@dataclass(frozen=True)
class Tiles:
    """How the gates of a kernel are cut into tiles, from the upper left corner; those at the edges may be smaller.

    Args:
        height: Number of units.
        width: Number of inputs.
        score: ``max``, the largest score in a tile, or ``mean_square``, the root of the mean of their squares.
    """

    height: int
    width: int
    score: TileScore = "max"

    def __post_init__(self) -> None:
        check_whole("block_size: height", self.height, 1)
        check_whole("block_size: width", self.width, 1)
        check_choice("block_score", self.score, TileScore)

    def of(self, gates_GUI: Tensor, fill: float) -> Tensor:
        """View the weights of every tile, [G, U / height, I / width, height·width], rounded up and filled up."""
        units, inputs = gates_GUI.shape[1:]
        padded = pad(gates_GUI, (0, -inputs % self.width, 0, -units % self.height), value=fill)
        tiles = padded.unflatten(2, (-1, self.width)).unflatten(1, (-1, self.height))
        return tiles.transpose(2, 3).flatten(3)

    def spread(self, tiles: Tensor, like_GUI: Tensor) -> Tensor:
        """Give every weight the value of its tile."""
        units, inputs = like_GUI.shape[1:]
        rows = tiles.repeat_interleave(self.height, 1)[:, :units]
        return rows.repeat_interleave(self.width, 2)[..., :inputs]

    def scores(self, scores_GUI: Tensor) -> Tensor:
        """Score every tile, over the scores above -inf in it; -inf where there is none.

        Raises:
            UsageError: If scores whose squares are taken have signs.
        """
        tiles = self.of(scores_GUI, -torch.inf)
        if self.score == "max":
            return tiles.amax(3)
        there = tiles > -torch.inf
        if (there & (tiles < 0)).any():
            raise UsageError("block_score='mean_square' drops the signs of scores, and some are below 0: take 'max'.")
        wide = tiles.to(torch.promote_types(tiles.dtype, torch.float32))  # squares of float16 under- and overflow
        mean = wide.masked_fill(~there, 0).square().sum(3) / there.sum(3).clamp(min=1)
        return mean.sqrt().masked_fill(~there.any(3), -torch.inf)

    def whole(self, mask_GUI: Tensor) -> Tensor:
        """Extend a mask to all weights of the tiles that it touches.

        Example:
            >>> Tiles(1, 2).whole(torch.tensor([[[True, False, False, False]]]))
            tensor([[[ True,  True, False, False]]])
        """
        return self.spread(self.of(mask_GUI.float(), 0).amax(3), mask_GUI) > 0


def nearest(scores: Tensor, sizes: Tensor, wanted: int) -> Tensor:
    """Mask of the best tiles, as many as hold nearest to ``wanted`` weights; of two equally near numbers the smaller.

    The earlier of equal scores wins.

    Example:
        >>> nearest(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([4, 4, 4]), 7)
        tensor([False,  True,  True])
    """
    order = scores.argsort(descending=True, stable=True)
    reached = torch.cat([sizes.new_zeros(1), sizes[order].cumsum(0)])
    count = int((reached - wanted).abs().argmin())
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen
