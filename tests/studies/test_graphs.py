"""What the graph study runs."""

import json

import networkx as nx
import numpy as np
import pytest

from sparse_rnn.cli.graph_study import parse
from sparse_rnn.compare.grid import Cell, Run
from sparse_rnn.errors import UsageError
from sparse_rnn.sparsity.graphs import LayeredGraph, graph_of, structure_of
from sparse_rnn.studies import graphs
from sparse_rnn.studies.graphs import FAMILIES, draw


@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_are_drawn_as_in_the_thesis(family):
    drawn = [draw(family, number, seed=0) for number in range(60)]
    sizes = [len(graph) for graph in drawn]
    assert min(sizes) >= 10
    assert max(sizes) <= 50
    assert np.mean(sizes) == pytest.approx(30, abs=5)
    for graph in drawn:
        n = len(graph)
        assert nx.is_connected(graph)
        if family == "barabasi_albert":
            assert graph.number_of_edges() == n // 10 * (n - n // 10)
            assert LayeredGraph.of(graph).sizes[0] == n // 10
        else:
            assert graph.number_of_edges() == n * (n // 5 // 2)
    assert nx.utils.graphs_equal(drawn[7], draw.__wrapped__(family, 7, 0))
    assert not nx.utils.graphs_equal(drawn[7], draw(family, 7, seed=1))


def value_of(arguments, name):
    return arguments[len(arguments) - arguments[::-1].index(name)]


def test_a_fit_has_the_structure_of_its_graph_whatever_the_cell(tmp_path):
    study = parse(["--count", "6", "--vary", "model.gate_masks=tiled,repeated", "--output", str(tmp_path)])
    runs = study.runs()
    assert len(runs) == 6 * 4 * 2 == len({study.folder(run) for run in runs})
    assert {run.cell.method for run in runs[:16]} == set(FAMILIES)  # one graph of each, with every cell
    for run in runs:
        arguments = study.fit_arguments(run)
        structure = json.loads(value_of(arguments, "--model.structure"))
        assert structure == structure_of(draw(run.cell.method, run.seed, 0))
        assert value_of(arguments, "--model.embedding_size") == str(LayeredGraph.of(graph_of(structure)).sizes[0])
        assert value_of(arguments, "--pruning.masks") == "from_zeros"
        assert value_of(arguments, "--model.gate_masks") == dict(run.cell.varied)["model.gate_masks"]


def test_data_that_are_no_letters_have_no_embedding_and_dense_networks_no_masks(monkeypatch):
    study = parse(["--config", "gru_digits.yaml", "--cells", "model.cell=gru"])
    run = study.runs()[0]
    assert "--model.embedding_size" not in study.fit_arguments(run)
    monkeypatch.setattr(graphs, "draw", lambda *args: nx.complete_bipartite_graph(3, 4))
    assert "--pruning.masks" not in study.fit_arguments(Run(Cell(FAMILIES[0], 0.0, run.cell.varied), 0))


def test_more_graphs_are_added_to_those_that_are_there_and_other_ones_are_not():
    few, more, other = (parse(args) for args in (["--count", "4"], ["--count", "8"], ["--seed", "1"]))
    assert more.runs()[: len(few.runs())] == few.runs()
    run = few.runs()[0]
    assert few.settings(run) == more.settings(run) != other.settings(run)


def test_a_seed_that_draws_nothing_is_refused():
    with pytest.raises(UsageError, match="seed=-1: give a whole number of at least 0"):
        parse(["--seed", "-1"])
