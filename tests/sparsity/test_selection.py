"""Which weights stay: exact counts, never back, guards, tiles, thresholds that lead where they should."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Guards, Selection
from sparse_rnn.sparsity.tiles import Tiles

IH, HH = "weight_ih_l0", "weight_hh_l0"
MAPPING = {"weight_hh*": {"r": 0.1, "z": 0.1, "n": 0.4}}
STRUCTURES = [None, Tiles(2, 3), Tiles(4, 4, "mean_square")]


def start(seed=0):
    torch.manual_seed(seed)
    kernels = find_targets(nn.GRU(5, 8))
    return kernels, Masks.full(kernels)


def magnitudes(kernels):
    return {name: kernel.parameter.detach().abs() for name, kernel in kernels.items()}


def changed_sizes(masks):
    """Scores that have nothing to do with the last ones, as if training had moved the weights a long way."""
    return {name: torch.rand(mask.shape) for name, mask in masks.items()}


def is_subset(masks, others):
    return all(bool((mask <= others[name]).all()) for name, mask in masks.items())


@settings(max_examples=60)
@given(sparsity=st.floats(0, 0.999), seed=st.integers(0, 99), ties=st.booleans())
def test_global_keeps_exactly_the_largest_and_the_earlier_of_equals(sparsity, seed, ties):
    kernels, masks = start(seed)
    scores = changed_sizes(masks)
    scores = {name: (score * 4).floor() if ties else score for name, score in scores.items()}
    masks = Selection(sparsity).best(kernels, scores)
    flat = torch.cat([scores[name].flatten() for name in kernels]).tolist()
    expected = sorted(range(len(flat)), key=lambda i: (-flat[i], i))[: round((1 - sparsity) * len(flat))]
    kept = torch.cat([masks[name].flatten() for name in kernels]).nonzero().flatten().tolist()
    assert kept == sorted(expected)


def test_scores_may_lie_in_any_order_in_memory():
    kernels, masks = start()
    scores = {name: (score * 4).floor() for name, score in changed_sizes(masks).items()}
    masks = Selection(0.7).best(kernels, scores)
    strided = Selection(0.7).best(kernels, {name: score.t().contiguous().t() for name, score in scores.items()})
    assert masks.digest() == strided.digest()
    assert all(mask.is_contiguous() for mask in strided.values())  # as the weights they will be multiplied with


@pytest.mark.parametrize(("allocation", "parts"), [("per_kernel", 1), ("per_gate", 3)])
def test_each_group_keeps_its_share(allocation, parts):
    kernels, masks = start()
    scores = changed_sizes(masks)
    scores[IH] += 10
    for name, mask in Selection(0.7, allocation).best(kernels, scores).items():
        for part, values in zip(mask.chunk(parts), scores[name].chunk(parts), strict=True):
            assert int(part.sum()) == round(0.3 * part.numel())
            assert values[part].min() > values[~part].max()


def test_scores_that_are_no_numbers_are_refused():
    kernels, masks = start()
    scores = changed_sizes(masks)
    scores[HH][0, 0] = float("nan")
    with pytest.raises(ValueError, match="1 scores of weight_hh_l0 are NaN"):
        Selection(0.5).best(kernels, scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": -0.1}, "sparsity=-0.1: give the share of weights to remove"),
        ({"sparsity": 1.0}, "sparsity=1.0: give the share of weights to remove"),
        ({"sparsity": 95}, "sparsity=95: give the share of weights to remove"),
        ({"sparsity": 0.5, "allocation": "layer"}, "allocation='layer': choose one of global, per_kernel, per_gate"),
        ({"sparsity": 0.5, "min_kept": -1}, "min_kept=-1: give the number of weights to keep at least"),
        ({"sparsity": 0.5, "block_size": (0, 4)}, "block_size: height=0: give a whole number of at least 1"),
        ({"sparsity": 0.5, "block_size": (1, 4), "block_score": "sum"}, "block_score='sum': choose one of max"),
    ],
)
def test_options_out_of_range_are_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        Selection.of(**options)


@settings(max_examples=40)
@given(
    st.sampled_from(["global", "per_kernel", "per_gate", "erk"]),
    st.booleans(),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.floats(0.1, 0.85),
    st.integers(0, 99),
)
def test_every_group_keeps_its_count_and_nothing_comes_back(allocation, diagonal, shares, sparsity, seed):
    kernels, masks = start(seed)
    selection = Selection(sparsity, allocation, guards=Guards(diagonal))
    for share in [*sorted(shares), 1.0]:
        before, masks = masks, selection.best(kernels, changed_sizes(masks), masks, share)
        assert is_subset(masks, before)
        for group in selection.groups(kernels):
            kept = sum(int(kernels[name].by_gate(masks[name])[g].sum()) for name, g in group.gates)
            wanted = group.total - share * (group.total - group.density * group.total)
            assert abs(kept - wanted) <= 0.5 + 1e-6
        if diagonal:
            assert all(gate.diagonal().all() for gate in masks[HH].chunk(3))
    assert abs(masks.kept - (1 - sparsity) * masks.total) <= (0.5 if allocation in ("global", "erk") else 3.0) + 1e-6


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_gates_of_a_mapping_lose_the_same_share_of_what_they_are_to_lose(share):
    kernels, masks = start()
    masks = Selection(0.8, MAPPING).best(kernels, changed_sizes(masks), masks, share)
    r, z, n = (int(gate.sum()) for gate in masks[HH].chunk(3))
    assert (r, z, n) == tuple(round(64 * (1 - share * lost)) for lost in (0.9, 0.9, 0.6))
    assert masks.kept == pytest.approx(312 * (1 - share * 0.8), abs=1)


@settings(max_examples=60)
@given(
    structure=st.sampled_from([Tiles(2, 3), Tiles(4, 2, "mean_square"), Tiles(3, 4)]),
    min_kept=st.integers(1, 3),
    diagonal=st.booleans(),
    shares=st.lists(st.floats(0, 1), max_size=2),
    seed=st.integers(0, 99),
)
def test_tiles_stay_whole_and_leave_every_gate_and_neuron_its_least(structure, min_kept, diagonal, shares, seed):
    kernels, masks = start(seed)
    selection = Selection(0.6, "global", structure, Guards(diagonal, min_kept))
    for share in [*sorted(shares), 1.0]:
        masks = selection.best(kernels, changed_sizes(masks), masks, share)
    for name, mask in masks.items():
        gates = kernels[name].by_gate(mask)
        assert (gates.sum((1, 2)) >= min_kept).all()
        assert (gates.sum((0, 2)) >= min_kept).all()
        free = ~torch.eye(8, dtype=torch.bool) if diagonal and name == HH else torch.ones(gates.shape[1:]).bool()
        filled = structure.whole(gates & free)
        assert torch.equal(gates & free, filled & free)
    largest = structure.height * structure.width
    assert abs(masks.kept - 0.4 * masks.total) <= largest


def test_tiles_that_are_too_large_for_their_least_are_refused():
    kernels, _ = start()
    selection = Selection(0.9, structure=Tiles(4, 8), guards=Guards(min_kept=1))
    with pytest.raises(ValueError, match=r"min_kept=1 keeps whole tiles, \d+ weights of the model, but only 31 of 312"):
        selection.check(kernels)


@pytest.mark.each_value
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("guards", [Guards(), Guards(keep_diagonal=True), Guards(min_kept=1)])
@pytest.mark.parametrize("allocation", ["global", "per_gate"])
def test_a_rising_threshold_never_overshoots_and_ends_at_the_count(structure, guards, allocation):
    kernels, masks = start()
    selection = Selection(0.5, allocation, structure, guards)
    for fraction in (0.2, 0.5, 0.9, 1.0):
        before, sizes = masks, changed_sizes(masks)
        final = selection.best(kernels, sizes, masks)
        masks, thresholds = selection.towards(kernels, sizes, masks, fraction)
        assert is_subset(masks, before)
        assert is_subset(final, masks)
        if not guards.min_kept:
            scaled = {gate: fraction * value for gate, value in thresholds.items()}
            assert selection.above(kernels, sizes, before, scaled).digest() == masks.digest()
    assert masks.digest() == final.digest()
    if structure is None:
        assert masks.kept == pytest.approx(0.5 * masks.total, abs=3)


def test_a_threshold_leaves_what_the_guards_keep():
    kernels, masks = start()
    thresholds = dict.fromkeys([(name, g) for name in kernels for g in range(3)], 2.0)  # above everything
    scores = changed_sizes(masks)
    left = Selection(0.0, guards=Guards(keep_diagonal=True, min_kept=2)).above(kernels, scores, masks, thresholds)
    hh = kernels[HH].by_gate(left[HH])
    assert torch.equal(hh, torch.eye(8, dtype=torch.bool).expand(3, 8, 8))
    ih = kernels[IH].by_gate(left[IH])
    assert ih.sum((0, 2)).tolist() == [2] * 8
    best = kernels[IH].by_gate(scores[IH]).transpose(0, 1).flatten(1).topk(2).values
    assert torch.equal(
        kernels[IH].by_gate(scores[IH]).masked_fill(~ih, 0).transpose(0, 1).flatten(1).topk(2).values, best
    )


def test_the_threshold_of_single_weights_is_the_largest_that_goes():
    kernels, masks = start()
    sizes = magnitudes(kernels)
    _, thresholds = Selection(0.9).towards(kernels, sizes, masks, 0.5)
    everything = torch.cat([size.flatten() for size in sizes.values()]).sort().values
    gone = everything.numel() - round(0.1 * everything.numel())
    assert set(thresholds.values()) == {everything[gone - 1].item()}
    assert set(thresholds) == {(name, g) for name in kernels for g in range(3)}


def test_equal_weights_do_not_go_all_at_once():
    kernels, masks = start()
    sizes = {name: torch.ones(kernel.shape) for name, kernel in kernels.items()}
    kept, _ = Selection(0.5).towards(kernels, sizes, masks, 1.0)
    assert kept.kept == masks.total // 2


def test_what_cannot_be_reached_is_refused_beforehand():
    kernels, _ = start()
    with pytest.raises(ValueError, match="contradict each other"):
        Selection(0.5, {"weight_hh*": 0.1, "weight_ih*": 0.1}).check(kernels)
    with pytest.raises(ValueError, match="keep_diagonal=True keeps"):
        Selection(0.95, guards=Guards(keep_diagonal=True)).check(kernels)


@pytest.mark.parametrize("within_gates", [False, True])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("diagonal", [False, True])
def test_weights_that_move_keep_their_number_their_diagonal_and_their_tiles(structure, within_gates, diagonal):
    kernels, masks = start()
    selection = Selection(0.6, "per_kernel", structure, Guards(diagonal))
    masks = selection.best(kernels, magnitudes(kernels), masks)
    growth = changed_sizes(masks)
    moved = selection.moved(kernels, masks, magnitudes(kernels), growth, 1.0, within_gates)
    for name, mask in moved.items():
        before, after = kernels[name].by_gate(masks[name]), kernels[name].by_gate(mask)
        assert not torch.equal(before, after)
        free = torch.ones_like(before)
        if diagonal and name == HH:
            assert after.diagonal(dim1=1, dim2=2).all()
            free = ~torch.eye(8, dtype=torch.bool).expand(3, 8, 8)
        counted = (after & free, before & free)
        if structure is not None:
            assert torch.equal(after & free, structure.whole(after & free) & free)
            counted = tuple(structure.of(part.float(), 0).amax(3) > 0 for part in counted)
        new, old = (part.sum((1, 2)) if within_gates else part.sum() for part in counted)
        assert torch.equal(new, old)
