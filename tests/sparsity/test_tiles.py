"""Tiles against brute force: cutting, scores, ranking, diagonals."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.kernels import Kernel, Targets, find_targets
from sparse_rnn.sparsity.selection import Guards, Selection
from sparse_rnn.sparsity.tiles import Tiles

sizes = st.integers(1, 9)
score_kinds = st.sampled_from(["max", "mean_square"])


def cut(gates, units, inputs, tiles):
    """Index of gate, rows and columns of every tile, in order."""
    for g, top, left in product(range(gates), range(0, units, tiles.height), range(0, inputs, tiles.width)):
        yield g, slice(top, top + tiles.height), slice(left, left + tiles.width)


@given(st.integers(1, 3), sizes, sizes, sizes, sizes, score_kinds, st.integers(0, 99))
def test_tile_scores_are_those_of_the_weights_in_each_tile(gates, units, inputs, height, width, kind, seed):
    tiles = Tiles(height, width, kind)
    scores = torch.rand(gates, units, inputs, generator=torch.Generator().manual_seed(seed))
    scores[scores < 0.2] = -torch.inf
    spread = tiles.spread(tiles.scores(scores), scores)
    for tile in cut(gates, units, inputs, tiles):
        left = scores[tile][scores[tile] > -torch.inf]
        expected = torch.tensor(-torch.inf)
        if len(left):
            expected = left.max() if kind == "max" else left.square().mean().sqrt()
        assert torch.allclose(spread[tile], expected)


@given(st.integers(1, 3), sizes, sizes, st.integers(1, 4), st.integers(1, 4), st.floats(0, 0.99), st.integers(0, 99))
def test_the_best_tiles_stay_as_many_as_come_nearest(gates, units, inputs, height, width, sparsity, seed):
    tiles, module = Tiles(height, width), nn.Module()
    scores = torch.rand(gates, units, inputs, generator=torch.Generator().manual_seed(seed))
    flat = scores.flatten(0, 1)
    module.w = nn.Parameter(torch.empty(flat.shape))
    kernels = Targets(module, [Kernel("w", module.w, tuple("abc"[:gates]))], [])
    keep = Selection(sparsity, structure=tiles).best(kernels, {"w": flat})["w"].view_as(scores)
    ranked = sorted(cut(gates, units, inputs, tiles), key=lambda tile: -scores[tile].max())
    kept = [bool(keep[tile].all()) for tile in ranked]
    assert all(bool(keep[tile].any()) == whole for tile, whole in zip(ranked, kept, strict=True))
    assert kept == sorted(kept, reverse=True)
    reached = [sum(keep[tile].numel() for tile in ranked[:count]) for count in range(len(ranked) + 1)]
    wanted = round((1 - sparsity) * scores.numel())
    assert abs(int(keep.sum()) - wanted) == min(abs(count - wanted) for count in reached)


def test_diagonals_stay_beside_the_tiles_and_do_not_raise_their_scores():
    module = nn.RNN(4, 4)
    with torch.no_grad():
        module.weight_hh_l0.copy_(torch.eye(4) * 9)
        module.weight_hh_l0[0:2, 2:4] = 1.0
        module.weight_hh_l0[0, 1] = 0.5
    kernels = find_targets(module, ["weight_hh_l0"])
    selection = Selection(1 - 8 / 16, structure=Tiles(2, 2), guards=Guards(keep_diagonal=True))
    best = selection.best(kernels, {"weight_hh_l0": module.weight_hh_l0.detach().abs()})["weight_hh_l0"]
    expected = torch.eye(4).bool()
    expected[0:2, 2:4] = True
    assert torch.equal(best, expected)


@pytest.mark.parametrize("height", [0, -1])
def test_sizes_below_one_are_refused(height):
    with pytest.raises(ValueError, match=f"block_size: height={height}: give a whole number of at least 1"):
        Tiles(height, 8)


def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match="block_score='sum': choose one of max, mean_square"):
        Tiles(4, 8, "sum")


def test_squares_are_not_taken_of_scores_with_signs():
    with pytest.raises(UsageError, match="mean_square' drops the signs"):
        Tiles(1, 2, "mean_square").scores(torch.tensor([[[-5.0, -5.0, 1.0, 1.0]]]))
    removed = torch.tensor([[[-torch.inf, 2.0, 1.0, 1.0]]])  # in an earlier round, or for good
    assert Tiles(1, 2, "mean_square").scores(removed).flatten().tolist() == [2.0, 1.0]


@pytest.mark.parametrize("size", [1e-4, 300])
def test_squares_of_half_precision_rank_as_those_of_the_same_numbers(size):
    scores = (torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)) * size).half()
    tiles = Tiles(2, 2, "mean_square")
    torch.testing.assert_close(tiles.scores(scores), tiles.scores(scores.float()))
