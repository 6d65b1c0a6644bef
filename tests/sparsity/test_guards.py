"""Guards: diagonals that stay, and the least that every kernel, gate and neuron keeps."""

from itertools import pairwise

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_rnn import prune
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.kernels import Kernel, Targets, find_targets
from sparse_rnn.sparsity.allocation import Group
from sparse_rnn.sparsity.guards import Guards, reserve_
from sparse_rnn.sparsity.selection import Selection

UNITS = 5
IH, HH = "weight_ih_l0", "weight_hh_l0"
KERNELS = find_targets(nn.GRU(4, UNITS))
ALLOCATIONS = ["global", "per_kernel", "per_gate", "erk", {HH: {"n": 0.5}}]


def scores_of(seed: int, ties: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(3 * UNITS, k, generator=generator) for name, k in ((IH, 4), (HH, UNITS))}
    # Skewed, so that the guards have something to do.
    scores = {name: score * torch.rand(3 * UNITS, 1, generator=generator) ** 6 for name, score in scores.items()}
    return {name: (score * 6).floor() if ties else score for name, score in scores.items()}


def by_gate(tensor):
    return tensor.view(3, UNITS, -1)


settings_ = settings(max_examples=150)
guarded = {
    "seed": st.integers(0, 999),
    "ties": st.booleans(),
    "sparsity": st.floats(0.2, 0.6),
    "allocation": st.sampled_from(ALLOCATIONS),
    "diagonal": st.booleans(),
    "min_kept": st.integers(0, 2),
}


def keep(scores, sparsity, allocation, diagonal, min_kept):
    return Selection(sparsity, allocation, guards=Guards(diagonal, min_kept)).best(KERNELS, scores)


def keep_of_one(scores, gates, selection):
    """The mask of a single kernel of gates of one's own."""
    module = nn.Module()
    module.w = nn.Parameter(scores.clone())
    kernels = Targets(module, [Kernel("w", module.w, gates)], [])
    return selection.best(kernels, {"w": scores})["w"]


@settings_
@given(**guarded)
def test_the_guards_hold_within_the_exact_counts(seed, ties, sparsity, allocation, diagonal, min_kept):
    scores = scores_of(seed, ties)
    masks = keep(scores, sparsity, allocation, diagonal, min_kept)
    for group in Selection(sparsity, allocation).groups(KERNELS):
        assert sum(int(by_gate(masks[name])[g].sum()) for name, g in group.gates) == group.kept
    if diagonal:
        assert by_gate(masks[HH]).diagonal(dim1=1, dim2=2).all()
    for name, mask in masks.items():
        assert (by_gate(mask).sum((1, 2)) >= min_kept).all(), name
        assert (by_gate(mask).sum((0, 2)) >= min_kept).all(), name


@settings_
@given(**guarded, weight=st.integers(0, 3 * UNITS * UNITS - 1), gain=st.floats(0.001, 2))
def test_a_weight_that_is_kept_stays_so_when_its_score_rises(
    seed, ties, sparsity, allocation, diagonal, min_kept, weight, gain
):
    scores = scores_of(seed, ties)
    if keep(scores, sparsity, allocation, diagonal, min_kept)[HH].flatten()[weight]:
        scores[HH].view(-1)[weight] += gain
        assert keep(scores, sparsity, allocation, diagonal, min_kept)[HH].flatten()[weight]


@settings_
@given(seed=st.integers(0, 999), ties=st.booleans(), allocation=st.sampled_from(["global", "per_kernel", "erk"]))
def test_a_guard_that_is_satisfied_changes_nothing(seed, ties, allocation):
    scores = scores_of(seed, ties)
    free = keep(scores, 0.4, allocation, False, 0)
    least = min(int(by_gate(mask).sum(other).min()) for mask in free.values() for other in ((0, 2), (1, 2)))
    guarded = keep(scores, 0.4, allocation, False, least)
    assert all(torch.equal(free[name], guarded[name]) for name in free)


def test_every_neuron_keeps_its_best_weights_and_the_rest_goes_by_rank():
    # One kernel, one gate; a row each unit.
    scores = torch.tensor([[9.0, 8, 7], [0.1, 0.2, 0.0], [6, 5, 4]])
    mask = keep_of_one(scores, ("h",), Selection(1 - 5 / 9, guards=Guards(min_kept=1)))
    assert mask.tolist() == [[True, True, True], [False, True, False], [True, False, False]]


def test_a_neuron_refused_by_a_full_gate_keeps_weights_of_another():
    # Both units have their best weights in gate a, which may keep only one.
    scores = torch.tensor([[9.0, 8.0], [7.0, 6.0], [0.1, 0.2], [0.3, 0.4]])
    mask = keep_of_one(scores, ("a", "b"), Selection(0.75, "per_gate", guards=Guards(min_kept=1)))
    assert mask.tolist() == [[True, False], [False, False], [False, False], [False, True]]


def test_the_diagonal_counts_within_the_total():
    kernels = find_targets(nn.RNN(2, 3), ["*hh*"])
    scores = {HH: torch.arange(9.0).view(3, 3).flip(0)}
    mask = Selection(1 - 4 / 9, guards=Guards(keep_diagonal=True)).best(kernels, scores)[HH]
    assert mask.tolist() == [[True, False, True], [False, True, False], [False, False, True]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_kept": 2}, "min_kept=2: too few weights are to stay in weight_ih_l0 for each of its gates and neurons"),
        ({"min_kept": 99}, "min_kept=99: too few weights are to stay in weight_ih_l0"),
        ({"min_kept": -1}, "min_kept=-1: give the number"),
        ({"keep_diagonal": True}, "keep_diagonal=True keeps 15 weights of the model, but only 13 of 135 are to stay"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        Selection(0.9, guards=Guards(**options)).best(KERNELS, scores_of(0))


def test_a_diagonal_asks_for_a_square_kernel():
    kernels = find_targets(nn.GRU(4, UNITS), ["*ih*"])
    with pytest.raises(ValueError, match="none of the kernels to prune is recurrent and square: weight_ih_l0; leave"):
        Selection(0.5, guards=Guards(keep_diagonal=True)).check(kernels)


def can_be(masks, left, groups, min_kept):
    """Whether every gate and unit can have its least, by a maximum flow from units over gates to groups."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_flow

    gates = [(name, g) for group in groups for name, g in group.gates]
    units = [(name, u) for name in left for u in range(UNITS)]
    size = len(units) + len(gates) + len(groups) + 2
    edges = torch.zeros(size, size, dtype=torch.int32)
    for i, (name, u) in enumerate(units, start=1):
        edges[0, i] = min_kept
        for j, (kernel, g) in enumerate(gates, start=1 + len(units)):
            if kernel == name:
                edges[i, j] = int(by_gate(left[name])[g, u].sum())
    for k, group in enumerate(groups, start=1 + len(units) + len(gates)):
        for gate in group.gates:
            edges[1 + len(units) + gates.index(gate), k] = group.kept
        edges[k, size - 1] = group.kept
    return maximum_flow(csr_matrix(edges.numpy()), 0, size - 1).flow_value == min_kept * len(units)


@settings(max_examples=50)
@given(seed=st.integers(0, 9999), sparsity=st.floats(0.6, 0.85), allocation=st.sampled_from(["per_gate", "erk"]))
def test_in_stages_every_neuron_keeps_its_least_wherever_that_is_possible(seed, sparsity, allocation):
    selection, masks = Selection(sparsity, allocation, guards=Guards(min_kept=1)), None
    for stage in (0.25, 0.5, 0.75, 1.0):
        left = dict(masks) if masks else {name: torch.ones(k.shape, dtype=torch.bool) for name, k in KERNELS.items()}
        groups = selection.groups(KERNELS, stage, geometric=True)
        scores = scores_of(seed + round(100 * stage))
        if not can_be(masks, left, groups, 1):
            return
        masks = selection.best(KERNELS, scores, masks, stage, geometric=True)
        for name, mask in masks.items():
            assert (by_gate(mask).sum((0, 2)) >= 1).all()
            assert (mask <= left[name]).all()
        for group in groups:
            assert sum(int(by_gate(masks[name])[g].sum()) for name, g in group.gates) == group.kept


def test_a_unit_with_more_than_it_must_keep_makes_room():
    """Six weights can give each of 3 units, and of 6 gates, its one, but not with each gate's best weights."""
    for seed in range(30):
        torch.manual_seed(seed)
        masks = prune(nn.GRU(1, 3), None, sparsity=1 - 6 / 36, criterion="magnitude", min_kept=1)
        assert masks.kept == 6
        for mask in masks.values():
            assert (mask.view(3, 3, -1).sum((1, 2)) >= 1).all()
            assert (mask.view(3, 3, -1).sum((0, 2)) >= 1).all()


def is_possible(groups, shapes, min_kept):
    """Tell by a maximal flow with lower bounds whether every gate and unit can keep its least."""
    flow, demand = nx.DiGraph(), {}

    def pipe(source, target, least, most):
        before = flow.get_edge_data(source, target, {"capacity": 0})["capacity"]
        flow.add_edge(source, target, capacity=before + most - least)
        demand[source], demand[target] = demand.get(source, 0) + least, demand.get(target, 0) - least

    for number, group in enumerate(groups):
        pipe("source", number, 0, group.kept)
        for name, gate in group.gates:
            _, units, inputs = shapes[name]
            pipe(number, (name, "gate", gate), min(min_kept, units * inputs), units * inputs)
            for unit in range(units):
                pipe((name, "gate", gate), (name, "unit", unit), 0, inputs)
    for name, (gates, units, inputs) in shapes.items():
        for unit in range(units):
            pipe((name, "unit", unit), "sink", min_kept, gates * units * inputs)
    pipe("sink", "source", 0, 10**6)
    for node, least in demand.items():
        flow.add_edge(*((node, "to") if least > 0 else ("from", node)), capacity=abs(least))
    return nx.maximum_flow_value(flow, "from", "to") == sum(least for least in demand.values() if least > 0)


@settings(max_examples=150)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 2), st.integers(0, 9999), st.data())
def test_what_is_refused_cannot_be(inputs, units, min_kept, seed, data):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"ih": (3, units, inputs), "hh": (3, units, units)}
    scores = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    gates = data.draw(st.permutations([(name, gate) for name in shapes for gate in range(3)]))
    cuts = sorted({0, len(gates), *data.draw(st.sets(st.integers(1, 5)))})
    groups = []
    for first, last in pairwise(cuts):
        total = sum(units * shapes[name][2] for name, _ in gates[first:last])
        kept = data.draw(st.integers(0, min(total, 2 + units * (last - first))))
        groups.append(Group(f"from {first}", gates[first:last], total, kept / total))
    keep = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes.items()}
    if any(min_kept > units * shape[2] for shape in shapes.values()) or not is_possible(groups, shapes, min_kept):
        with pytest.raises(UsageError, match="lower min_kept or the sparsity"):
            reserve_(keep, scores, groups, min_kept)
        return
    reserve_(keep, scores, groups, min_kept)
    assert all(sum(int(keep[name][gate].sum()) for name, gate in group.gates) <= group.kept for group in groups)
    for mask in keep.values():
        assert (mask.sum((1, 2)) >= min_kept).all()
        assert (mask.sum((0, 2)) >= min_kept).all()
