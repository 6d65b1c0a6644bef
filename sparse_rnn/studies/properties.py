"""The 23 properties of a graph that arXiv 2407.20601 predicts accuracy from."""

from collections.abc import Iterable

import networkx as nx
import numpy as np

from sparse_rnn.sparsity.graphs import LayeredGraph

SOURCES = "sources"


def properties(graph: nx.Graph) -> dict[str, float]:
    """Compute the properties of a connected, undirected graph, and of its layers.

    Args:
        graph: The graph, of three nodes or more.

    Returns:
        ``layers``, ``nodes``, ``edges``; ``sources`` and ``sinks``, the widths of the first and the last layer;
        ``diameter``, ``density`` and ``average shortest path``; mean, sample variance and standard deviation of
        eccentricity, degree centrality, closeness, and betweenness of nodes and of edges, as networkx computes them.

    Example:
        >>> found = properties(nx.path_graph(4))
        >>> len(found), found["layers"], found["diameter"], found["eccentricity mean"]
        (23, 4.0, 3.0, 2.5)
    """
    sizes = LayeredGraph.of(graph).sizes
    eccentricity = nx.eccentricity(graph)
    found = {
        "layers": len(sizes),
        "nodes": len(graph),
        "edges": graph.number_of_edges(),
        SOURCES: sizes[0],
        "sinks": sizes[-1],
        "diameter": max(eccentricity.values()),
        "density": nx.density(graph),
        "average shortest path": nx.average_shortest_path_length(graph),
    }
    distributions = {
        "eccentricity": eccentricity,
        "degree": nx.degree_centrality(graph),
        "closeness": nx.closeness_centrality(graph),
        "node betweenness": nx.betweenness_centrality(graph),
        "edge betweenness": nx.edge_betweenness_centrality(graph),
    }
    for name, of_each in distributions.items():
        found |= _moments(name, of_each.values())
    return {name: float(value) for name, value in found.items()}


def _moments(name: str, values: Iterable[float]) -> dict[str, float]:
    array = np.fromiter(values, dtype=float)
    variance = array.var(ddof=1)
    return {f"{name} mean": array.mean(), f"{name} variance": variance, f"{name} sd": variance**0.5}
