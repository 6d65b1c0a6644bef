"""Random graphs, and the layers of any graph."""

import networkx as nx
import numpy as np
import pytest
import torch

from sparse_rnn.errors import UsageError
from sparse_rnn.sparsity.graphs import LayeredGraph, graph_of, random_graph, structure_of

FAMILIES = {
    "barabasi_albert": {"m": 3},
    "erdos_renyi": {"p": 0.2},
    "layered": {"p": 0.5},
    "newman_watts_strogatz": {"k": 4, "p": 0.3},
    "ring": {"k": 4},
    "watts_strogatz": {"k": 4, "p": 1.0},
}


def longest_path(arcs, node):
    parents = list(arcs.predecessors(node))
    return 1 + max(longest_path(arcs, parent) for parent in parents) if parents else 0


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_and_masks_are_those_of_the_arcs(family):
    graph = random_graph(family, 16, seed=1, **FAMILIES[family])
    found = LayeredGraph.of(graph)
    arcs = nx.DiGraph((min(edge), max(edge)) for edge in graph.edges)
    arcs.add_nodes_from(graph)
    layer = {node: longest_path(arcs, node) for node in graph}
    assert found.layers == [[n for n in graph if layer[n] == at] for at in range(max(layer.values()) + 1)]
    for target, nodes in enumerate(found.layers):
        for source in range(target):
            expected = [[(u, v) in arcs.edges for u in found.layers[source]] for v in nodes]
            assert found.mask(source, target).tolist() == expected
        before = {layer[u] for v in nodes for u in arcs.predecessors(v)}
        assert found.sources(target) == sorted(before)
        assert not target or target - 1 in before
    total = sum(int(found.mask(s, t).sum()) for t in range(len(found.layers)) for s in found.sources(t))
    assert total == graph.number_of_edges()


def test_a_directed_graph_keeps_its_arcs():
    found = LayeredGraph.of(nx.DiGraph([("c", "a"), ("a", "b")]))
    assert found.layers == [["c"], ["a"], ["b"]]


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (nx.Graph(), "no node"),
        (nx.Graph([(3, 3)]), "Node 3"),
        (nx.DiGraph([(0, 1), (1, 0)]), "cycle"),
        ([[0, 1]], r"graph=\[\[0, 1\]\]: give a graph of networkx"),
    ],
)
def test_graphs_that_make_no_layers_are_refused(graph, said):
    with pytest.raises(UsageError, match=said):
        LayeredGraph.of(graph)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_makes_a_graph(family):
    one, other = (random_graph(family, 30, seed, **FAMILIES[family]) for seed in (4, 4))
    assert list(one) == list(range(30))
    assert nx.utils.graphs_equal(one, other)
    if family != "ring":
        assert not nx.utils.graphs_equal(one, random_graph(family, 30, 5, **FAMILIES[family]))


def test_the_sources_of_barabasi_and_albert_are_m():
    for n, m in [(27, 2), (41, 4), (12, 1)]:
        found = LayeredGraph.of(random_graph("barabasi_albert", n, seed=0, m=m))
        assert found.sizes[0] == m
        assert found.arcs.number_of_edges() == m * (n - m)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("density", [0.05, 0.2])
def test_a_density_decides_on_the_parameter(family, density):
    fixed = {name: value for name, value in FAMILIES[family].items() if name == "p" and family.endswith("strogatz")}
    graph = random_graph(family, 100, seed=0, density=density, **fixed)
    # k and m are whole numbers: a step of them is a fiftieth of all pairs.
    assert nx.density(graph) == pytest.approx(density, abs=0.012)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"family": "watts", "nodes": 5}, "watts_strogatz"),
        ({"family": "ring", "nodes": 5}, "needs k"),
        ({"family": "ring", "nodes": 5, "k": 5}, "from 0 to 4"),
        ({"family": "ring", "nodes": 5, "k": 2.5}, "whole number"),
        ({"family": "erdos_renyi", "nodes": 5, "p": 1.5}, r"p=1\.5: give a probability, a number in \[0, 1\]"),
        ({"family": "erdos_renyi", "nodes": 5, "k": 2}, "takes p"),
        ({"family": "ring"}, "nodes"),
        ({"nodes": 4}, "family or edges"),
        ({"nodes": 3, "edges": [[0, 3]]}, "no edge between"),
        ({"nodes": 3, "edges": [[0, 1]], "seed": 2}, "seed"),
        ({"nodes": 3, "edges": None}, "edges=None: give a list of pairs"),
        ({"nodes": 3, "edges": "01"}, "edges='01': give a list of pairs"),
        ({"nodes": 3, "edges": [1]}, "1 is no edge between"),
        ({"nodes": 3, "edges": [[0, 1, 2]]}, "no edge between"),
        ({"nodes": 3, "edges": [[0, "a"]]}, "no edge between"),
        ({"nodes": 3, "edges": [[0, [1]]]}, "no edge between"),
    ],
)
def test_a_structure_that_is_none_is_refused(arguments, said):
    with pytest.raises(UsageError, match=said):
        graph_of(arguments)


def shuffled(graph):
    """The same graph with its nodes and edges in another order."""
    nodes = sorted(graph, key=lambda node: hash((node, 3)))
    other = type(graph)()
    other.add_nodes_from(nodes)
    other.add_edges_from(graph.edges)
    return other


@pytest.mark.parametrize(
    "graph",
    [
        random_graph("erdos_renyi", 9, seed=2, p=0.4),
        shuffled(random_graph("watts_strogatz", 20, seed=1, k=4, p=0.5)),
        nx.DiGraph([(2, 0), (0, 1), (2, 1)]),
        nx.relabel_nodes(shuffled(nx.DiGraph(sorted(nx.complete_graph(6).edges)[3:])), str),
        nx.empty_graph(3),
    ],
)
def test_plain_values_describe_the_layers_and_arcs_of_any_graph(graph):
    found, again = LayeredGraph.of(graph), LayeredGraph.of(graph_of(structure_of(graph)))
    assert found.sizes == again.sizes
    for target in range(len(found.sizes)):
        assert found.sources(target) == again.sources(target)
        for source in range(target):
            assert torch.equal(found.mask(source, target), again.mask(source, target))


@pytest.mark.parametrize("family", ["ring", "watts_strogatz", "newman_watts_strogatz"])
def test_a_ring_has_edges_however_few_are_asked_for(family):
    assert random_graph(family, 50, seed=0, density=0.001).number_of_edges() >= 50
    assert random_graph(family, 2, seed=0, density=0.001).number_of_edges() == 0


def test_a_seed_of_numpy_is_a_seed():
    graphs = [random_graph("watts_strogatz", 10, seed=seed, k=4) for seed in (3, np.int64(3))]
    assert nx.utils.graphs_equal(*graphs)


def test_layers_are_found_whatever_device_is_the_default():
    graph = LayeredGraph.of(random_graph("ring", 8, seed=0, k=4))
    with torch.device("meta"):
        assert graph.sources(len(graph.sizes) - 1)
