"""Graphs as masks: their edges at their own density, exact counts at any other, the same in every gate."""

import networkx as nx
import pytest
import torch
from torch import nn

from sparse_rnn import Graph, prune
from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import seeded
from sparse_rnn.sparsity.graphs import random_graph

HH = "weight_hh_l0"
UNITS = 20
FAMILIES = {
    "barabasi_albert": {"m": 2},
    "erdos_renyi": {"p": 0.3},
    "layered": {"layers": 2, "p": 0.5},
    "newman_watts_strogatz": {"k": 4},
    "ring": {"k": 4},
    "watts_strogatz": {"k": 4, "p": 0.5},
}


def the_graph(family, seed=0):
    with seeded(seed):
        torch.rand(UNITS * UNITS, dtype=torch.float64)  # the order in which weights come or go
        return random_graph(family, UNITS, int(torch.randint(2**31, ())), **FAMILIES[family])


def mask_of(graph):
    mask = torch.zeros(UNITS, UNITS, dtype=torch.bool)
    for u, v in graph.edges:
        mask[u, v] = mask[v, u] = True
    return mask


def pruned(family, density, layer=nn.GRU, **options):
    criterion = Graph(family, **FAMILIES[family])
    return prune(layer(3, UNITS), None, sparsity=1 - density, criterion=criterion, kernels=[HH], **options)[HH]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [nn.RNN, nn.GRU, nn.LSTM])
def test_at_its_own_density_a_graph_is_kept_and_nothing_else(family, layer):
    mask = mask_of(the_graph(family))
    for gate in pruned(family, mask.double().mean().item(), layer).split(UNITS):
        assert torch.equal(gate, mask)


@pytest.mark.parametrize("sparsity", [0.0, 0.001, 0.999])
@pytest.mark.parametrize("units", [1, 2, 20])
def test_any_sparsity_can_be_had(units, sparsity):
    masks = prune(nn.RNN(3, units), None, sparsity=sparsity, criterion=Graph(), kernels=[HH])
    assert int(masks[HH].sum()) == round((1 - sparsity) * units**2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("allocation", ["global", "per_gate"])
def test_at_other_densities_it_is_thinned_or_filled_to_the_exact_count(family, allocation):
    mask = mask_of(the_graph(family))
    less, more = (pruned(family, density, allocation=allocation) for density in (0.05, 0.6))
    for kept, density in ((less, 0.05), (more, 0.6)):
        assert int(kept.sum()) == round(3 * UNITS**2 * density)
        r, z, n = kept.split(UNITS)
        assert torch.equal(r, z)
        assert torch.equal(z, n)
    assert not (less[:UNITS] & ~mask).any()
    assert not (mask & ~more[:UNITS]).any()


def test_without_its_parameter_a_family_comes_nearest_to_the_density():
    ring = prune(nn.GRU(3, 40), None, sparsity=0.8, criterion=Graph("ring"), kernels=[HH])[HH][:40]
    degree = (torch.arange(40)[:, None] - torch.arange(40)).abs()
    distance = torch.minimum(degree, 40 - degree)
    assert ring[(distance > 0) & (distance <= 4)].all()
    assert int(ring.sum()) == 40 * 8
    scale_free = prune(nn.RNN(3, 100), None, sparsity=0.9, criterion=Graph("barabasi_albert"), kernels=[HH])[HH]
    assert int(scale_free.sum()) == 1000
    assert int((scale_free & scale_free.T).sum()) > 900  # m = 5 has 950 of them


def test_other_kernels_keep_their_share_at_random():
    masks = prune(nn.LSTM(7, UNITS, num_layers=2), None, sparsity=0.8, criterion="graph")
    for name, mask in masks.items():
        gates = mask.chunk(4)
        assert mask.double().mean() == pytest.approx(0.2, abs=0.01), name
        assert sum(int((gates[0] != gate).sum()) for gate in gates) <= 4, name
    other = prune(nn.LSTM(7, UNITS, num_layers=2), None, sparsity=0.8, criterion="graph", seed=1)
    assert all((masks[name] != other[name]).any() for name in masks)


def test_a_criterion_of_the_user_is_left_as_it_is():
    criterion = Graph("erdos_renyi")
    prune(nn.GRU(3, UNITS), None, sparsity=0.5, criterion=criterion)
    assert criterion.density is None
    with pytest.raises(UsageError, match="needs p"):
        criterion.score(nn.GRU(3, UNITS), None, None, [HH])


@pytest.mark.parametrize(("family", "options", "said"), [("ring", {"p": 0.1}, "takes k"), ("rng", {}, "ring")])
def test_what_a_family_does_not_take_is_refused_at_once(family, options, said):
    with pytest.raises(UsageError, match=said):
        Graph(family, **options)


def test_graphs_of_the_families_are_what_they_are_called():
    assert nx.is_isomorphic(the_graph("ring"), nx.circulant_graph(UNITS, [1, 2]))
    assert nx.is_bipartite(the_graph("layered"))
