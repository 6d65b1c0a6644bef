"""Guards: diagonals that stay, and the least that every kernel, gate and neuron keeps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_rnn.sparsity.allocation import allocate
from sparse_rnn.sparsity.masks import emptied, keep_largest

UNITS = 5
GATES = {"ih": ("r", "z", "n"), "hh": ("r", "z", "n")}
ALLOCATIONS = ["global", "per_kernel", "per_gate", "erk", {"hh": {"n": 0.5}}]


def scores_of(seed: int, ties: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(3 * UNITS, k, generator=generator) for name, k in (("ih", 4), ("hh", UNITS))}
    # Skewed, so that the guards have something to do.
    scores = {name: score * torch.rand(3 * UNITS, 1, generator=generator) ** 6 for name, score in scores.items()}
    return {name: (score * 6).floor() if ties else score for name, score in scores.items()}


def blocks(tensor):
    return tensor.view(3, UNITS, -1)


settings_ = settings(max_examples=150, deadline=None)
guarded = {
    "seed": st.integers(0, 999),
    "ties": st.booleans(),
    "sparsity": st.floats(0.2, 0.6),
    "allocation": st.sampled_from(ALLOCATIONS),
    "diagonal": st.booleans(),
    "min_kept": st.integers(0, 2),
}


def keep(scores, sparsity, allocation, diagonal, min_kept):
    return keep_largest(scores, sparsity, GATES, allocation, ["hh"] if diagonal else [], min_kept)


@settings_
@given(**guarded)
def test_the_guards_hold_within_the_exact_counts(seed, ties, sparsity, allocation, diagonal, min_kept):
    scores = scores_of(seed, ties)
    masks = keep(scores, sparsity, allocation, diagonal, min_kept)
    shapes = {name: score.shape for name, score in scores.items()}
    for group in allocate(shapes, GATES, sparsity, allocation):
        assert sum(int(blocks(masks[name])[g].sum()) for name, g in group.blocks) == group.kept
    if diagonal:
        assert blocks(masks["hh"]).diagonal(dim1=1, dim2=2).all()
    for name, mask in masks.items():
        assert (blocks(mask).sum((1, 2)) >= min_kept).all(), name
        assert (blocks(mask).sum((0, 2)) >= min_kept).all(), name


@settings_
@given(**guarded, weight=st.integers(0, 3 * UNITS * UNITS - 1), gain=st.floats(0.001, 2))
def test_a_weight_that_is_kept_stays_so_when_its_score_rises(
    seed, ties, sparsity, allocation, diagonal, min_kept, weight, gain
):
    scores = scores_of(seed, ties)
    if keep(scores, sparsity, allocation, diagonal, min_kept)["hh"].flatten()[weight]:
        scores["hh"].view(-1)[weight] += gain
        assert keep(scores, sparsity, allocation, diagonal, min_kept)["hh"].flatten()[weight]


@settings_
@given(seed=st.integers(0, 999), ties=st.booleans(), allocation=st.sampled_from(["global", "per_kernel", "erk"]))
def test_a_guard_that_is_satisfied_changes_nothing(seed, ties, allocation):
    scores = scores_of(seed, ties)
    free = keep(scores, 0.4, allocation, False, 0)
    least = min(int(blocks(mask).sum(other).min()) for mask in free.values() for other in ((0, 2), (1, 2)))
    guarded = keep(scores, 0.4, allocation, False, least)
    assert all(torch.equal(free[name], guarded[name]) for name in free)


def test_every_neuron_keeps_its_best_weights_and_the_rest_goes_by_rank():
    # One kernel, one gate; a row each unit.
    scores = torch.tensor([[9.0, 8, 7], [0.1, 0.2, 0.0], [6, 5, 4]])
    mask = keep_largest({"w": scores}, 1 - 5 / 9, {"w": ("h",)}, "global", min_kept=1)["w"]
    assert mask.tolist() == [[True, True, True], [False, True, False], [True, False, False]]


def test_a_neuron_refused_by_a_full_gate_keeps_weights_of_another():
    # Both units have their best weights in gate a, which may keep only one.
    scores = torch.tensor([[9.0, 8.0], [7.0, 6.0], [0.1, 0.2], [0.3, 0.4]])
    masks = keep_largest({"w": scores}, 0.75, {"w": ("a", "b")}, "per_gate", min_kept=1)
    assert masks["w"].tolist() == [[True, False], [False, False], [False, False], [False, True]]


def test_the_diagonal_counts_within_the_total():
    scores = {"w": torch.arange(9.0).view(3, 3).flip(0)}
    mask = keep_largest(scores, 1 - 4 / 9, {"w": ("h",)}, "global", ["w"])["w"]
    assert mask.tolist() == [[True, False, True], [False, True, False], [False, False, True]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_kept": 2}, "min_kept=2: too few weights are to stay in ih for each of its gates and neurons to keep 2"),
        ({"min_kept": 99}, "min_kept=99: too few weights are to stay in ih"),
        ({"min_kept": -1}, "min_kept=-1: give the number"),
        ({"diagonal": ["hh"]}, "keep_diagonal=True keeps 15 weights of the model, but only 13 of 135 are to stay"),
        ({"diagonal": ["ih"]}, "keep_diagonal=True, but none of the kernels to prune is recurrent and square: ih, hh"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        keep_largest(scores_of(0), 0.9, GATES, "global", **options)


def test_what_lost_everything_is_named():
    masks = {"ih": torch.zeros(3 * UNITS, 4, dtype=torch.bool), "hh": torch.ones(3 * UNITS, UNITS, dtype=torch.bool)}
    blocks(masks["hh"])[1] = False
    blocks(masks["hh"])[:, 2:4] = False
    message = emptied(masks, GATES)
    assert message is not None
    assert message.startswith("No weight is left of kernel ih, gate z of hh, 2 neurons: ")
    assert emptied({"hh": torch.ones(3 * UNITS, UNITS, dtype=torch.bool)}, GATES) is None
