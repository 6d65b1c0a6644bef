"""Properties of graphs against closed forms."""

import networkx as nx
import pytest

from sparse_rnn.studies.graphs import draw
from sparse_rnn.studies.properties import properties


def test_a_path():
    found = properties(nx.path_graph(5))
    assert (found["layers"], found["nodes"], found["edges"], found["sources"], found["sinks"]) == (5, 5, 4, 1, 1)
    assert (found["diameter"], found["density"], found["average shortest path"]) == (4, 0.4, 2.0)
    assert found["eccentricity mean"] == pytest.approx((4 + 3 + 2 + 3 + 4) / 5)
    assert found["eccentricity variance"] == pytest.approx(0.7)
    assert found["eccentricity sd"] == pytest.approx(0.7**0.5)
    assert found["degree mean"] == pytest.approx((1 + 2 + 2 + 2 + 1) / 4 / 5)
    # pairs of others that a node, and of all that an edge, is on the shortest path of
    assert found["node betweenness mean"] == pytest.approx((0 + 3 + 4 + 3 + 0) / 6 / 5)
    assert found["edge betweenness mean"] == pytest.approx((4 + 6 + 6 + 4) / 10 / 4)


def test_a_complete_graph_has_no_variance():
    found = properties(nx.complete_graph(6))
    assert (found["layers"], found["density"], found["closeness mean"]) == (6, 1, 1)
    assert [value for name, value in found.items() if name.endswith(("variance", "sd"))] == pytest.approx([0] * 10)


def test_a_star_whose_centre_is_last_is_read_by_its_leaves():
    star = nx.empty_graph(5)
    star.add_edges_from((leaf, 4) for leaf in range(4))
    found = properties(star)
    assert (found["sources"], found["sinks"], found["layers"]) == (4, 1, 2)
    assert found["closeness variance"] == pytest.approx((4 / 7 - 1) ** 2 / 5)


def test_there_are_23_of_every_graph():
    assert {len(properties(draw(family, 0, 0))) for family in ("barabasi_albert", "watts_strogatz")} == {23}
