"""Blocks against brute force: cutting, scores, ranking, diagonals."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparse_rnn.sparsity.allocation import allocate
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Thinning
from sparse_rnn.sparsity.tiles import Blocks, keep_best

sizes = st.integers(1, 9)
score_kinds = st.sampled_from(["max", "mean_square"])


def tiles(gates, units, inputs, blocks):
    """Index of gate, rows and columns of every block, in order."""
    for g, top, left in product(range(gates), range(0, units, blocks.height), range(0, inputs, blocks.width)):
        yield g, slice(top, top + blocks.height), slice(left, left + blocks.width)


@given(st.integers(1, 3), sizes, sizes, sizes, sizes, score_kinds, st.integers(0, 99))
def test_block_scores_are_those_of_the_weights_in_each_block(gates, units, inputs, height, width, kind, seed):
    blocks = Blocks(height, width, kind)
    scores = torch.rand(gates, units, inputs, generator=torch.Generator().manual_seed(seed))
    scores[scores < 0.2] = -torch.inf
    spread = blocks.spread(blocks.scores(scores), scores)
    for tile in tiles(gates, units, inputs, blocks):
        left = scores[tile][scores[tile] > -torch.inf]
        expected = torch.tensor(-torch.inf)
        if len(left):
            expected = left.max() if kind == "max" else left.square().mean().sqrt()
        assert torch.allclose(spread[tile], expected)


@given(st.integers(1, 3), sizes, sizes, st.integers(1, 4), st.integers(1, 4), st.floats(0, 0.99), st.integers(0, 99))
def test_the_best_blocks_stay_as_many_as_come_nearest(gates, units, inputs, height, width, sparsity, seed):
    blocks, names = Blocks(height, width), {"w": tuple("abc"[:gates])}
    scores = torch.rand(gates, units, inputs, generator=torch.Generator().manual_seed(seed))
    flat = scores.flatten(0, 1)
    groups = allocate({"w": flat.shape}, names, sparsity, "global")
    keep = keep_best({"w": flat}, names, groups, (), blocks)["w"].view_as(scores)
    ranked = sorted(tiles(gates, units, inputs, blocks), key=lambda tile: -scores[tile].max())
    kept = [bool(keep[tile].all()) for tile in ranked]
    assert all(bool(keep[tile].any()) == whole for tile, whole in zip(ranked, kept, strict=True))
    assert kept == sorted(kept, reverse=True)
    reached = [sum(keep[tile].numel() for tile in ranked[:count]) for count in range(len(ranked) + 1)]
    wanted = round((1 - sparsity) * scores.numel())
    assert abs(int(keep.sum()) - wanted) == min(abs(count - wanted) for count in reached)


def test_diagonals_stay_beside_the_blocks_and_do_not_raise_their_scores():
    module = nn.RNN(4, 4)
    with torch.no_grad():
        module.weight_hh_l0.copy_(torch.eye(4) * 9)
        module.weight_hh_l0[0:2, 2:4] = 1.0
        module.weight_hh_l0[0, 1] = 0.5
    masks = Masks.full(module, ["weight_hh_l0"])
    thinning = Thinning(1 - 8 / 16, keep_diagonal=True, blocks=Blocks(2, 2))
    best = thinning.best(module, masks, {"weight_hh_l0": module.weight_hh_l0.detach().abs()}, 1.0)["weight_hh_l0"]
    expected = torch.eye(4).bool()
    expected[0:2, 2:4] = True
    assert torch.equal(best, expected)


@pytest.mark.parametrize("height", [0, -1])
def test_sizes_below_one_are_refused(height):
    with pytest.raises(ValueError, match=f"block_size=\\({height}, 8\\): give two sizes of at least 1"):
        Blocks(height, 8)


def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match="block_score='sum': choose one of max, mean_square"):
        Blocks(4, 8, "sum")
