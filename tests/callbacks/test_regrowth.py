"""Regrowth by itself: which gradients it remembers, and what it makes of them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sparse_rnn.callbacks.regrowth import Regrowth
from sparse_rnn.callbacks.scheduled import Update
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Selection

UNITS, GATES = 4, 3
HALF = Selection(0.5, "per_kernel")
ALONE = SimpleNamespace(world_size=1)


def half_a_gru():
    """Return a GRU and masks that keep every other weight."""
    torch.manual_seed(0)
    gru = nn.GRU(2, UNITS)
    masks = Masks({name: torch.arange(p.numel()).view_as(p) % 2 == 0 for name, p in find(gru)}, gru)
    masks.apply_()
    return gru, masks


def find(gru):
    return [(name, kernel.parameter) for name, kernel in find_targets(gru).items()]


def update(gru, masks, share=0.5, step=1):
    return Update(ALONE, gru, step, None, masks, share)


def give_gradients(gru, seed):
    """Let a backward pass add random gradients to those of the kernels; return what it added."""
    generator = torch.Generator().manual_seed(seed)
    added = {name: torch.randn(parameter.shape, generator=generator) for name, parameter in find(gru)}
    for name, parameter in find(gru):
        parameter.grad = added[name].clone() if parameter.grad is None else parameter.grad + added[name]
    return added


def grown_and_missing(masks, moved):
    return {name: (moved[name] & ~mask, ~(moved[name] | mask)) for name, mask in masks.items()}


def test_weights_grow_by_the_sum_of_the_backward_passes_of_a_batch_though_each_is_masked_after_it():
    gru, masks = half_a_gru()
    regrowth = Regrowth("gradient", "kernel", seed=0)
    sums = dict.fromkeys(masks, 0.0)
    for seed in (1, 2, 3):
        added = give_gradients(gru, seed)
        regrowth.collect(gru, masks)
        masks.apply_to_gradients_()
        sums = {name: sums[name] + added[name] for name in masks}
    moved = regrowth.moved(HALF, update(gru, masks))
    for name, (grown, missing) in grown_and_missing(masks, moved).items():
        assert moved[name].count_nonzero() == masks[name].count_nonzero()
        assert grown.any()
        assert sums[name][grown].abs().min() >= sums[name][missing].abs().max()


def test_gradients_serve_one_update_and_can_be_forgotten():
    gru, masks = half_a_gru()
    regrowth = Regrowth("gradient", "kernel", seed=0)
    for spend in (lambda: regrowth.moved(HALF, update(gru, masks)), regrowth.forget):
        give_gradients(gru, seed=1)
        regrowth.collect(gru, masks)
        spend()
        assert regrowth.moved(HALF, update(gru, masks)).digest() == masks.digest()


@pytest.mark.parametrize("where", ["gradient", "weight"])
def test_nothing_moves_by_what_is_not_finite(where):
    gru, masks = half_a_gru()
    regrowth = Regrowth("gradient", "kernel", seed=0)
    give_gradients(gru, seed=1)
    with torch.no_grad():
        (gru.weight_hh_l0.grad if where == "gradient" else gru.weight_hh_l0)[0, 0] = torch.inf
    regrowth.collect(gru, masks)
    assert regrowth.moved(HALF, update(gru, masks)) is None


def test_random_growth_needs_no_gradient_and_goes_by_seed_and_step():
    gru, masks = half_a_gru()
    moves = [
        Regrowth("random", "kernel", seed).moved(HALF, update(gru, masks, step=step)).digest()
        for seed, step in ((1, 1), (1, 1), (1, 2), (2, 1))
    ]
    assert moves[0] == moves[1]
    assert len({masks.digest(), *moves}) == 4


def test_each_gate_keeps_its_number_where_weights_move_within_gates():
    gru, masks = half_a_gru()
    moved = Regrowth("random", "gate", seed=0).moved(HALF, update(gru, masks, share=1.0))
    for name, mask in masks.items():
        assert [int(gate.sum()) for gate in moved[name].chunk(GATES)] == [int(gate.sum()) for gate in mask.chunk(GATES)]


@pytest.mark.parametrize(
    ("growth", "redistribution", "said"),
    [("gradients", "kernel", "growth='gradients'"), ("random", "all", "redistribution='all'")],
)
def test_an_unknown_choice_is_named(growth, redistribution, said):
    with pytest.raises(UsageError, match=said):
        Regrowth(growth, redistribution, 0)
