from math import prod

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_rnn.recurrent.kernels import Kernel
from sparse_rnn.sparsity.allocation import Group, allocate

LSTM = ("i", "f", "g", "o")
SHAPES = {"rnn.weight_ih_l0": (40, 3), "rnn.weight_hh_l0": (40, 10)}
TOTAL = 40 * 13


def counts(allocation, sparsity=0.9, shapes=SHAPES):
    kernels = {name: Kernel(name, nn.Parameter(torch.empty(shape)), LSTM) for name, shape in shapes.items()}
    return {group.name: group.kept for group in allocate(kernels, sparsity, allocation)}


@st.composite
def shapes_of_kernels(draw):
    sides = st.integers(1, 30)
    return {f"k{i}": (4 * draw(sides), draw(sides)) for i in range(draw(st.integers(1, 4)))}


@settings(max_examples=200)
@given(shapes=shapes_of_kernels(), sparsity=st.floats(0, 0.999))
@example(shapes={"k0": (8, 11), "k1": (44, 17)}, sparsity=0.669921875)
def test_erk_keeps_the_exact_total_in_proportion_but_never_more_than_there_is(shapes, sparsity):
    kept = counts("erk", sparsity, shapes)
    assert sum(kept.values()) == round((1 - sparsity) * sum(map(prod, shapes.values())))
    scale = []
    for name, (rows, inputs) in shapes.items():
        assert 0 <= kept[name] <= rows * inputs
        ideal = 4 * (rows / 4 + inputs)  # weights of a gate times its density, for four gates
        if kept[name] < rows * inputs:
            scale.append(((kept[name] - 1) / ideal, (kept[name] + 1) / ideal))
    # One factor explains all kernels that are not full, to within the rounding.
    if scale:
        assert max(low for low, _ in scale) <= min(high for _, high in scale)
        full = [name for name, shape in shapes.items() if kept[name] == prod(shape)]
        for name in full:  # and would fill the full ones, to within the rounding
            rows, inputs = shapes[name]
            assert max(high for _, high in scale) * 4 * (rows / 4 + inputs) >= rows * inputs - 1


def test_erk_redistributes_what_a_full_kernel_cannot_take():
    # Gates of 10x1 and 10x10 weights: densities ∝ 1.1 and 0.2; at half of 440 weights the small kernel is full.
    assert counts("erk", 0.5, {"small": (40, 1), "large": (40, 10)}) == {"small": 40, "large": 180}
    # Below that, 11 to 20 of the weights.
    assert counts("erk", 0.93, {"small": (40, 1), "large": (40, 10)}) == {"small": 11, "large": 20}


def test_a_mapping_names_kernels_and_gates_and_the_rest_shares_what_is_left():
    kept = counts({"*weight_hh*": {"g": 0.2, "o": 0.01}, "*weight_ih*": 0.1})
    assert kept == {
        "gate g of rnn.weight_hh_l0": 20,
        "gate o of rnn.weight_hh_l0": 1,
        "rnn.weight_ih_l0": 12,
        "what allocation does not name": 52 - 33,
    }


def test_each_kernel_that_a_pattern_matches_keeps_the_density():
    assert counts({"*": 0.1}) == {"rnn.weight_ih_l0": 12, "rnn.weight_hh_l0": 40}


def test_a_mapping_that_names_everything_may_miss_the_total_by_rounding_only():
    gates = dict.fromkeys(LSTM, 0.04)  # 1.2 of 30 and 4 of 100 weights
    assert sum(counts({"*": gates}, sparsity=0.96).values()) == 4 * (1 + 4)
    assert round(0.04 * TOTAL) == 21


@pytest.mark.parametrize(
    ("allocation", "message"),
    [
        ({"*weight_hh*": 0.5}, r"contradict each other: of 520 weights 52 are to stay, the densities keep 200"),
        ({"*": 0.01}, r"keep 5 and leave 0 unnamed; give a sparsity from 0\.9904 to 0\.9904"),
        ({"*weight_ch*": 0.1}, r"'\*weight_ch\*' matches none of the kernels to prune: rnn\.weight_ih_l0, rnn\."),
        ({"*weight_hh*": {"n": 0.1}}, "rnn.weight_hh_l0 has no gate 'n', only i, f, g, o"),
        ({"*": 0.1, "*hh*": {"f": 0.1}}, r"gives gate f of rnn\.weight_hh_l0 two densities, the second by '\*hh\*'"),
        ({"*": 1.5}, r"the density of \*=1\.5: give a share"),
        ({"*": {"i": -0.1}}, r"the density of gate i of \*=-0\.1: give a share"),
        ("layer", "allocation='layer': choose one of global, per_kernel, per_gate, erk, or map name patterns"),
    ],
)
def test_contradictions_are_one_sentence(allocation, message):
    with pytest.raises(ValueError, match=message):
        counts(allocation)


@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
def test_on_the_way_the_ends_are_exact_and_rounds_multiply(density):
    group = Group("k", [("k", 0)], 1000, density)
    for geometric in (False, True):
        assert group.on_the_way(0.0, geometric).kept == 1000
        assert group.on_the_way(1.0, geometric) == group
    assert group.on_the_way(0.25).density == pytest.approx(1 - 0.25 * (1 - density))
    quarter = group.on_the_way(0.25, geometric=True).density
    assert quarter**4 == pytest.approx(density)
