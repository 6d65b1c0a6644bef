"""Graphs as structures of networks: random families, the layers of a graph, and the masks between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import Any, Literal, get_args

import networkx as nx
import torch
from torch import Tensor

from sparse_rnn.checks import MOST_TIMES, check_number, check_seed, check_whole, is_whole
from sparse_rnn.errors import UsageError, check_choice

Family = Literal["barabasi_albert", "erdos_renyi", "layered", "newman_watts_strogatz", "ring", "watts_strogatz"]


@dataclass(frozen=True)
class LayeredGraph:
    """A graph as the layers of a network, and the arcs between them.

    The edges of an undirected graph become arcs from the earlier to the later of their nodes, in the graph's order; the
    arcs of a directed one stay. The layer of a node is 1 + the largest layer of those that have an arc to it, and 0 for
    sources, which have none (Darji, arXiv 2407.20601). So every node but the sources has an arc from the layer before.

    Args:
        arcs: The arcs, without a cycle; :meth:`of` makes them of any graph.

    Example:
        >>> found = LayeredGraph.of(nx.Graph([(0, 1), (1, 2), (0, 2)]))
        >>> found.layers, found.sources(2)
        ([[0], [1], [2]], [0, 1])
        >>> found.mask(1, 2)
        tensor([[True]])
    """

    arcs: nx.DiGraph

    @classmethod
    def of(cls, graph: nx.Graph) -> LayeredGraph:
        """Give the edges of a graph directions, and its nodes layers.

        Raises:
            UsageError: If it is no graph of networkx, has no node, is directed and has a cycle, or a node has an edge
                to itself.
        """
        if not isinstance(graph, nx.Graph):
            raise UsageError(f"graph={graph!r}: give a graph of networkx, as graph_of makes one of nodes and edges.")
        if not len(graph):
            raise UsageError("The graph has no node: give one with a node for each unit.")
        if loops := list(nx.selfloop_edges(graph)):
            raise UsageError(f"Node {loops[0][0]!r} of the graph has an edge to itself: leave such edges out.")
        arcs = nx.DiGraph()
        arcs.add_nodes_from(graph)
        place = {node: at for at, node in enumerate(graph)}
        forward = graph.is_directed()
        arcs.add_edges_from((u, v) if forward or place[u] < place[v] else (v, u) for u, v in graph.edges())
        if not nx.is_directed_acyclic_graph(arcs):
            raise UsageError("The directed graph has a cycle: a network of layers needs one without.")
        return cls(arcs)

    @cached_property
    def layers(self) -> list[list[Any]]:
        """The nodes of each layer, in the order of the graph."""
        place = {node: at for at, node in enumerate(self.arcs)}
        return [sorted(nodes, key=place.__getitem__) for nodes in nx.topological_generations(self.arcs)]

    @property
    def sizes(self) -> list[int]:
        """The number of nodes of each layer."""
        return [len(nodes) for nodes in self.layers]

    def mask(self, source: int, target: int) -> Tensor:
        """Return which nodes of one layer have an arc to which of another, bool [target's nodes, source's nodes]."""
        nodes = self.layers[source]
        arcs = [[self.arcs.has_edge(u, v) for u in nodes] for v in self.layers[target]]
        return torch.tensor(arcs, device="cpu")  # it is looked at, whatever device is the default

    def sources(self, target: int) -> list[int]:
        """List the layers that have an arc into another: for all but layer 0 the one before it is the last of them."""
        return [source for source in range(target) if self.mask(source, target).any()]

    @property
    def complete(self) -> bool:
        """Whether each layer has all arcs from the one before it, and no others, as a dense network has."""
        pairs = pairwise(self.sizes)
        return self.arcs.number_of_edges() == sum(above * below for above, below in pairs) and all(
            len(self.sources(target)) <= 1 for target in range(len(self.sizes))
        )


@dataclass(frozen=True)
class _Kind:
    """A family: its generator, the parameters it takes, and how to choose the one that decides on the density.

    Args:
        make: From nodes, seed and the parameters to a graph.
        free: The parameter that decides on the number of edges.
        solve: From nodes, a number of edges and the other parameters to the value of ``free`` that comes nearest.
        fixed: The other parameters and their defaults.
    """

    make: Callable[..., nx.Graph]
    free: str
    solve: Callable[..., float]
    fixed: Mapping[str, float]


def random_graph(
    family: Family, nodes: int, seed: int, density: float | None = None, **parameters: float | None
) -> nx.Graph:
    """Draw a graph of a family, by the generators of networkx.

    Args:
        family: ``barabasi_albert`` (m): each new node gets edges to m others, preferably those that have many; the
            first m + 1 are a star whose centre comes last, so that m nodes are sources. ``erdos_renyi`` (p): each edge
            with probability p. ``ring`` (k): each node with the k nearest around a circle. ``watts_strogatz`` (k, p): a
            ring, each edge of which is rewired with probability p (0.1): a small world. ``newman_watts_strogatz``
            (k, p): a ring that gets a shortcut for each of its edges with probability p (0.1), and loses none.
            ``layered`` (layers, p): nodes in equal layers (4), an edge with probability p between nodes of two
            successive ones.
        nodes: Number of nodes.
        seed: Decides the graph.
        density: Share of the pairs of nodes that are to have an edge; the parameter that decides on it, m, p or k, is
            chosen so that the graph comes nearest. Without it that parameter is needed.
        parameters: The parameters of the family, named above; None stands for none given.

    Returns:
        The graph, of nodes 0 … nodes − 1.

    Raises:
        UsageError: If the family is unknown, or a parameter is missing, unknown or out of range.

    Example:
        >>> random_graph("watts_strogatz", 20, seed=0, k=4, p=0.2).number_of_edges()
        40
        >>> random_graph("barabasi_albert", 40, seed=0, density=0.1).number_of_edges()
        76
    """
    check_family(family, parameters)
    check_whole("nodes", nodes, 1, MOST_TIMES)
    check_seed(seed)
    check_number("density", density, "[0, 1]", optional=True)
    kind = _KINDS[family]
    chosen = {**kind.fixed, **{name: value for name, value in parameters.items() if value is not None}}
    if kind.free not in chosen:
        if density is None:
            raise UsageError(f"{family} needs {kind.free}: give it.")
        chosen[kind.free] = kind.solve(nodes, density * nodes * (nodes - 1) / 2, **chosen)
    _check_sizes(family, nodes, chosen)
    return kind.make(nodes, int(seed), **chosen)  # networkx takes no number of NumPy's


def check_family(family: str, parameters: Mapping[str, float | None]) -> None:
    """Refuse a family that does not exist, or a parameter that it does not take, with a UsageError.

    Args:
        family: See :func:`random_graph`.
        parameters: Those that are None are not given.
    """
    check_choice("family", family, Family)
    takes = [_KINDS[family].free, *_KINDS[family].fixed]
    for name, value in parameters.items():
        if value is None:
            continue
        if name not in takes:
            raise UsageError(f"{name}={value}: {family} has no such parameter; it takes {', '.join(takes)}.")
        if name == "p":
            check_number("p", value, "[0, 1]", "a probability")
        else:
            check_whole(name, value, _LEAST[name])


def graph_of(structure: Mapping[str, Any]) -> nx.Graph:
    """Make the graph that a mapping of plain values describes, as configs and checkpoints hold it.

    Args:
        structure: ``family``, ``nodes``, ``seed`` (0) and what else :func:`random_graph` takes; or ``edges``, a list of
            pairs of nodes 0 … ``nodes`` − 1, whose arcs go from the lower to the higher one: :func:`structure_of` makes
            it of any graph.

    Raises:
        UsageError: If something is missing, or cannot be used.

    Example:
        >>> graph_of({"family": "ring", "nodes": 6, "k": 2}).number_of_edges()
        6
        >>> graph_of({"nodes": 3, "edges": [[0, 1], [1, 2]]}).number_of_edges()
        2
    """
    given = dict(structure)
    nodes = given.pop("nodes", None)
    check_whole("nodes", nodes, 1, MOST_TIMES)
    if ("family" in given) == ("edges" in given):
        raise UsageError(f"structure={structure}: give either family or edges.")
    if "family" in given:
        return random_graph(given.pop("family"), nodes, given.pop("seed", 0), **given)
    edges = given.pop("edges")
    if given:
        raise UsageError(f"structure: there is nothing called {', '.join(given)} beside nodes and edges.")
    if not isinstance(edges, Sequence) or isinstance(edges, str):
        raise UsageError(f"structure: edges={edges!r}: give a list of pairs of nodes, such as [[0, 1], [1, 2]].")
    graph = nx.empty_graph(nodes)
    for edge in edges:
        pair = isinstance(edge, Sequence) and len(edge) == 2
        if not pair or not all(is_whole(node) and 0 <= node < nodes for node in edge):
            raise UsageError(f"structure: {edge!r} is no edge between two of the nodes 0 to {nodes - 1}.")
        graph.add_edge(*edge)
    return graph


def structure_of(graph: nx.Graph) -> dict[str, Any]:
    """Describe any graph by plain values, from which :func:`graph_of` makes one with the same layers and arcs.

    The nodes, whatever they are, become numbers, layer by layer and in the order of the graph, so that every arc goes
    to a higher one.

    Raises:
        UsageError: See :meth:`LayeredGraph.of`.

    Example:
        >>> structure_of(nx.DiGraph([("c", "a"), ("a", "b"), ("c", "b")]))
        {'nodes': 3, 'edges': [[0, 1], [0, 2], [1, 2]]}
    """
    layered = LayeredGraph.of(graph)
    number = {node: at for at, node in enumerate(chain.from_iterable(layered.layers))}
    return {"nodes": len(number), "edges": sorted([number[u], number[v]] for u, v in layered.arcs.edges)}


def _check_sizes(family: str, nodes: int, parameters: Mapping[str, float]) -> None:
    """Refuse numbers that are too large for so many nodes."""
    for name, most in (("m", nodes - 1), ("k", nodes - 1), ("layers", nodes)):
        if name in parameters:
            check_whole(name, parameters[name], _LEAST[name], most, f"what {family} of {nodes} nodes takes")


def _barabasi_albert(nodes: int, seed: int, m: float) -> nx.Graph:
    # networkx begins with a star, too, but since 2.7 with its centre first, which would be the only source.
    leaves = int(m)
    star = nx.empty_graph(leaves + 1)
    star.add_edges_from((leaf, leaves) for leaf in range(leaves))
    return nx.barabasi_albert_graph(nodes, leaves, seed, initial_graph=star)


def _layered(nodes: int, seed: int, p: float, layers: float) -> nx.Graph:
    edges = nx.gnp_random_graph(nodes, p, seed).edges
    layer = [node * int(layers) // nodes for node in range(nodes)]
    graph = nx.empty_graph(nodes)
    graph.add_edges_from((u, v) for u, v in edges if abs(layer[u] - layer[v]) == 1)
    return graph


def _pairs_of_layers(nodes: int, layers: float) -> int:
    return _layered(nodes, 0, 1.0, layers).number_of_edges()


def _best_m(nodes: int, edges: float) -> int:
    return min(range(1, max(2, nodes // 2 + 1)), key=lambda m: abs(m * (nodes - m) - edges))


def _best_k(nodes: int, edges: float, p: float = 0.0) -> int:
    """Return the even number of neighbours, 2 at least, whose ring of nodes · k/2 edges comes nearest."""
    return min(max(2, 2 * round(edges / nodes / (1 + p))), (nodes - 1) // 2 * 2)


_LEAST = {"m": 1, "k": 0, "layers": 1}
_KINDS: dict[str, _Kind] = {
    "barabasi_albert": _Kind(_barabasi_albert, "m", _best_m, {}),
    "erdos_renyi": _Kind(
        lambda nodes, seed, p: nx.gnp_random_graph(nodes, p, seed),
        "p",
        lambda nodes, edges: min(1.0, edges / max(1, nodes * (nodes - 1) / 2)),
        {},
    ),
    "layered": _Kind(
        _layered, "p", lambda nodes, edges, layers: min(1.0, edges / max(1, _pairs_of_layers(nodes, layers))),
        {"layers": 4},
    ),
    "newman_watts_strogatz": _Kind(
        lambda nodes, seed, k, p: nx.newman_watts_strogatz_graph(nodes, int(k), p, seed), "k", _best_k, {"p": 0.1}
    ),
    "ring": _Kind(lambda nodes, seed, k: nx.watts_strogatz_graph(nodes, int(k), 0), "k", _best_k, {}),
    "watts_strogatz": _Kind(
        lambda nodes, seed, k, p: nx.watts_strogatz_graph(nodes, int(k), p, seed),
        "k",
        lambda nodes, edges, p: _best_k(nodes, edges),
        {"p": 0.1},
    ),
}  # fmt: skip
assert _KINDS.keys() == set(get_args(Family))
