"""Rounds: the density on the way, nothing that comes back, failures that change nothing."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_rnn import Magnitude, Random, prune
from sparse_rnn.pruning.rounds import check_rounds, prune_in_rounds, prune_targets
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.sparsity.selection import Selection
from sparse_rnn.sparsity.statistics import statistics


@pytest.mark.filterwarnings("ignore:All scores of:UserWarning")  # nothing flows through what is left
@pytest.mark.parametrize("criterion", ["jacobian", "magnitude", "random", "synflow"])
@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_rounds_end_at_exactly_the_wished_number(model, criterion, rounds, x):
    masks = prune(model, x, sparsity=0.9, criterion=criterion, rounds=rounds)
    assert masks.kept == round(0.1 * masks.total)


class Recording(Magnitude):
    """Scores by magnitude and notes how many weights are left each time."""

    def __init__(self):
        self.left = []

    def score(self, module, batch, loss_fn=None, names=None):
        scores = super().score(module, batch, loss_fn, names)
        self.left.append(sum(int(score.count_nonzero()) for score in scores.values()))
        if len(self.left) == 6:
            raise RuntimeError("out of memory")
        return scores


def test_the_density_falls_exponentially_over_the_rounds(model, x):
    criterion = Recording()
    masks = prune(model, x, sparsity=0.99, criterion=criterion, rounds=4)
    assert criterion.left == [round(0.01 ** (k / 4) * masks.total) for k in range(4)]


def test_one_criterion_of_the_survivors_alone_is_the_same_in_one_round_or_many(model, build, x):
    once = prune(model, x, sparsity=0.9, criterion="magnitude").digest()
    assert prune(build(), x, sparsity=0.9, criterion="magnitude", rounds=5).digest() == once


def test_a_failure_between_rounds_leaves_the_weights_as_they_were(model, x):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="out of memory"):
        prune(model, x, sparsity=0.9, criterion=Recording(), rounds=8)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_no_rounds_are_refused(model, x):
    with pytest.raises(ValueError, match="rounds=0: give the number of times to score"):
        prune(model, x, sparsity=0.9, rounds=0)


@pytest.mark.parametrize(
    "allocation", ["per_gate", "erk", {"*weight_hh*": {"g": 0.2}, "*ih_l0": 0.5}, {"*ih*": 0.3, "*hh*": 0.3}]
)
@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_rounds_end_at_the_counts_of_the_allocation_and_the_guards_hold(model, allocation, criterion, build, x):
    options = {"sparsity": 0.7, "criterion": criterion, "allocation": allocation, "min_kept": 1, "keep_diagonal": True}
    masks = prune(model, x, rounds=5, **options)
    once = prune(build(), x, **options)
    assert masks.kept == once.kept
    if allocation == "per_gate":
        assert statistics(masks) == statistics(once)
    if allocation == "erk":
        assert [int(mask.sum()) for mask in masks.values()] == [int(mask.sum()) for mask in once.values()]
    for name, mask in masks.items():
        assert mask.view(4, 8, -1).any(2).any(0).all()
        assert mask.view(4, -1).any(1).all()
        if "weight_hh" in name:
            assert mask.view(4, 8, 8).diagonal(dim1=1, dim2=2).all()


def test_nothing_comes_back_between_rounds(model, x):
    applied = []

    class Watching(Random):
        def score(self, module, batch, loss_fn=None, names=None):
            scores = super().score(module, batch, loss_fn, names)
            applied.append({name: module.get_parameter(name) != 0 for name in scores})
            return scores

    masks = prune(model, x, sparsity=0.8, criterion=Watching(), allocation="per_gate", min_kept=1, rounds=6)
    for before, after in zip(applied, [*applied[1:], dict(masks)], strict=True):
        assert all((before[name] | ~after[name]).all() for name in masks)


@settings(max_examples=40)
@given(st.floats(0, 0.99), st.integers(1, 9), st.integers(0, 10_000))
def test_the_masks_of_rounds_lie_in_each_other_and_their_sizes_are_powers_of_the_density(sparsity, rounds, seed):
    rnn = nn.GRU(3, 6)
    targets = find_targets(rnn)
    generator = torch.Generator().manual_seed(seed)
    left = []

    def score():
        left.append({name: kernel.parameter != 0 for name, kernel in targets.items()})
        return {name: torch.rand(kernel.shape, generator=generator) for name, kernel in targets.items()}

    masks = prune_in_rounds(targets, Selection(sparsity), score, rounds)
    total = masks.total
    left.append(dict(masks))
    assert len(left) == rounds + 1
    for k, mask in enumerate(left):
        assert sum(int(m.sum()) for m in mask.values()) == pytest.approx(
            (1 - sparsity) ** (k / rounds) * total, abs=0.51
        )
    for before, after in pairwise(left):
        assert all(not (after[name] & ~before[name]).any() for name in after)
    assert all((targets[name].parameter[~mask] == 0).all() for name, mask in masks.items())


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_seed_is_that_of_the_scores_and_the_generator_is_left_as_it_was(model, rounds):
    targets = find_targets(model)
    drawn = []

    def score():
        drawn.append(torch.rand(2))
        return Random().score(model, None, None, targets)

    state = torch.get_rng_state()
    prune_targets(targets, Selection(0.5), score, chi=dict, rounds=rounds, seed=9)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn[0], torch.rand(2, generator=torch.Generator().manual_seed(9)))
    assert len(drawn) == rounds
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == rounds  # the rounds go on drawing


def test_what_is_empty_is_said_in_one_sentence_and_nothing_else_is():
    def notes(sparsity):
        torch.manual_seed(0)
        targets = find_targets(nn.GRU(3, 4))
        score = {name: kernel.parameter.detach().abs() for name, kernel in targets.items()}
        return prune_targets(targets, Selection(sparsity), lambda: score, chi=dict)[1]

    assert notes(0.0) == []
    [note] = notes(0.97)
    assert note.startswith("No weight is left of ")


def test_chi_is_measured_before_the_weights_go_and_after_with_the_seed(model):
    targets = find_targets(model)
    seen = []

    def chi():
        left = sum(int(kernel.parameter.count_nonzero()) for kernel in targets.values())
        seen.append((left, torch.rand(1).item()))
        return {tuple(name for name in targets if "hh" in name): torch.tensor(1.0)}

    masks, _ = prune_targets(
        targets, Selection(0.5), lambda: Magnitude().score(model, None, None, targets), chi, rescale="chi", seed=4
    )
    first = torch.rand(1, generator=torch.Generator().manual_seed(4)).item()
    assert seen[0] == (masks.total, first)
    assert all(numbers == first for _, numbers in seen)


def test_a_failure_in_the_first_of_one_round_changes_nothing(model):
    def broken():
        raise KeyboardInterrupt

    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        prune_targets(find_targets(model), Selection(0.5), broken, chi=dict)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("rounds", [0, -3])
def test_a_number_of_rounds_is_positive_or_left_to_the_criterion(rounds):
    check_rounds(None)
    check_rounds(1)
    with pytest.raises(ValueError, match=f"rounds={rounds}: give the number of times to score"):
        check_rounds(rounds)
