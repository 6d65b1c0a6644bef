"""Which weights go next: exact counts, never back, thresholds that lead where they should."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Thinning
from sparse_rnn.sparsity.tiles import Blocks

KERNELS = ["weight_ih_l0", "weight_hh_l0"]
MAPPING = {"weight_hh*": {"r": 0.1, "z": 0.1, "n": 0.4}}
SOME_BLOCKS = [None, Blocks(2, 3), Blocks(4, 4, "mean_square")]


def start(seed=0):
    torch.manual_seed(seed)
    module = nn.GRU(5, 8)
    return module, Masks.full(module, KERNELS)


def changed_sizes(masks):
    """Scores that have nothing to do with the last ones, as if training had moved the weights a long way."""
    return {name: torch.rand(mask.shape) for name, mask in masks.items()}


def is_subset(masks, others):
    return all(bool((mask <= others[name]).all()) for name, mask in masks.items())


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["global", "per_kernel", "per_gate", "erk"]),
    st.booleans(),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.floats(0.1, 0.85),
    st.integers(0, 99),
)
def test_every_group_keeps_its_count_and_nothing_comes_back(allocation, diagonal, shares, sparsity, seed):
    module, masks = start(seed)
    thinning = Thinning(sparsity, allocation, diagonal)
    for share in [*sorted(shares), 1.0]:
        before, masks = masks, thinning.best(module, masks, changed_sizes(masks), share)
        assert is_subset(masks, before)
        for group in thinning.groups(module, masks):
            chunks = {name: mask.chunk(3) for name, mask in masks.items()}
            kept = sum(int(chunks[name][g].sum()) for name, g in group.blocks)
            wanted = group.total - share * (group.total - group.density * group.total)
            assert abs(kept - wanted) <= 0.5 + 1e-6
        if diagonal:
            assert all(gate.diagonal().all() for gate in masks["weight_hh_l0"].chunk(3))
    assert abs(masks.kept - (1 - sparsity) * masks.total) <= (0.5 if allocation in ("global", "erk") else 3.0) + 1e-6


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_gates_of_a_mapping_lose_the_same_share_of_what_they_are_to_lose(share):
    module, masks = start()
    thinning = Thinning(0.8, MAPPING)
    masks = thinning.best(module, masks, changed_sizes(masks), share)
    r, z, n = (int(gate.sum()) for gate in masks["weight_hh_l0"].chunk(3))
    assert (r, z, n) == tuple(round(64 * (1 - share * lost)) for lost in (0.9, 0.9, 0.6))
    assert masks.kept == pytest.approx(312 * (1 - share * 0.8), abs=1)


@pytest.mark.parametrize("blocks", SOME_BLOCKS)
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("allocation", ["global", "per_gate"])
def test_a_rising_threshold_never_overshoots_and_ends_at_the_count(blocks, diagonal, allocation):
    module, masks = start()
    thinning = Thinning(0.75, allocation, diagonal, blocks)
    for fraction in (0.2, 0.5, 0.9, 1.0):
        before, sizes = masks, changed_sizes(masks)
        final = thinning.best(module, masks, sizes, 1.0)
        masks, thresholds = thinning.on_the_way(module, masks, sizes, fraction)
        assert is_subset(masks, before)
        assert is_subset(final, masks)
        alone = thinning.above(module, before, sizes, {gate: fraction * value for gate, value in thresholds.items()})
        assert {name: mask.tolist() for name, mask in alone.items()} == {n: m.tolist() for n, m in masks.items()}
    assert masks.digest() == final.digest()
    if blocks is None:
        assert masks.kept == pytest.approx(0.25 * masks.total, abs=3)


def test_the_threshold_of_single_weights_is_the_largest_that_goes():
    module, masks = start()
    sizes = {name: module.get_parameter(name).detach().abs() for name in masks}
    _, thresholds = Thinning(0.9).on_the_way(module, masks, sizes, 0.5)
    everything = torch.cat([size.flatten() for size in sizes.values()]).sort().values
    gone = everything.numel() - round(0.1 * everything.numel())
    assert set(thresholds.values()) == {everything[gone - 1].item()}
    assert set(thresholds) == {(name, g) for name in KERNELS for g in range(3)}


def test_equal_weights_do_not_go_all_at_once():
    module, masks = start()
    sizes = {name: torch.ones_like(module.get_parameter(name)) for name in masks}
    kept, _ = Thinning(0.5).on_the_way(module, masks, sizes, 1.0)
    assert kept.kept == masks.total // 2


def test_what_cannot_be_reached_is_refused_beforehand():
    module, masks = start()
    with pytest.raises(ValueError, match="contradict each other"):
        Thinning(0.5, {"weight_hh*": 0.1, "weight_ih*": 0.1}).check(module, masks)
    with pytest.raises(ValueError, match="keep_diagonal=True keeps"):
        Thinning(0.95, keep_diagonal=True).check(module, masks)
