"""The graph study: networks with the structure of random graphs, each trained in a fit of its own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import networkx as nx
import numpy as np
from tqdm import tqdm

from sparse_rnn.compare.axes import points, slug
from sparse_rnn.compare.grid import Cell, Grid, Run
from sparse_rnn.compare.runner import check_settings, finished, run_all
from sparse_rnn.config_files import read_config, section
from sparse_rnn.sparsity.graphs import LayeredGraph, random_graph, structure_of

FAMILIES = ("barabasi_albert", "watts_strogatz")
NODES = (10, 50)
# The zeros of the structure are kept by a callback, too, so that the layers compute with their arcs only.
_SPARSE = ("--pruning", "OneShotPruning", "--pruning.masks", "from_zeros")


@dataclass(frozen=True)
class GraphStudy(Grid):
    """A grid whose rows are families of graphs, and whose seeds are the numbers of graphs in a family.

    Args:
        graph_seed: Decides which graphs are drawn.
    """

    graph_seed: int = 0

    def runs(self, chosen: object = None) -> list[Run]:
        """List the fits, graph by graph, so that a study that is stopped early has all families and cells."""
        cells = [Cell(family, 0.0, point) for family in FAMILIES for point in points(self.vary)]
        return [Run(cell, number) for number in range(self.seeds) for cell in cells]

    def folder(self, run: Run) -> Path:
        """Name the folder that a fit writes to."""
        return self.output / "-".join(filter(None, [f"{run.cell.method}_{run.seed}", slug(run.cell.varied)]))

    def graph(self, run: Run) -> nx.Graph:
        """Draw the graph of a fit, the same one for every cell."""
        return draw(run.cell.method, run.seed, self.graph_seed)

    def fit_arguments(self, run: Run) -> list[str]:
        """List what follows ``python -m sparse_rnn`` in the command line of one fit."""
        layered = LayeredGraph.of(self.graph(run))
        structure = structure_of(layered.arcs)
        arguments = [*super().fit_arguments(run), "--model.structure", json.dumps(structure)]
        arguments += () if layered.complete else _SPARSE
        if self._embeds():
            # The thesis embeds letters into as many numbers as there are sources.
            arguments += ["--model.embedding_size", str(layered.sizes[0])]
        return arguments

    def settings(self, run: Run) -> list[str]:
        """List what a fit is told beside what its name says."""
        return [*super().settings(run), f"graphs of seed {self.graph_seed}"]

    def _embeds(self) -> bool:
        return any(section(read_config(config), "model")[1].get("embedding_size") for config in self.configs)


@cache
def draw(family: str, number: int, seed: int) -> nx.Graph:
    """Draw a connected graph as arXiv 2407.20601 does.

    Args:
        family: ``barabasi_albert``, m = n // 10; or ``watts_strogatz``, k = n // 5, p = 1; n uniform in 10 … 50.
        number: Which of the family.
        seed: Decides all of them.

    Example:
        >>> graph = draw("barabasi_albert", 3, seed=0)
        >>> len(graph), graph.number_of_edges()
        (39, 108)
    """
    rng = np.random.default_rng([seed, FAMILIES.index(family), number])
    nodes = int(rng.integers(NODES[0], NODES[1], endpoint=True))
    while True:
        at = int(rng.integers(2**31))
        if family == "barabasi_albert":
            graph = random_graph("barabasi_albert", nodes, at, m=nodes // 10)
        else:
            graph = random_graph("watts_strogatz", nodes, at, k=nodes // 5, p=1.0)
        if nx.is_connected(graph):
            return graph


def run_missing(study: GraphStudy) -> list[str]:
    """Train what is not finished, with a progress bar on stderr.

    Args:
        study: The study.

    Returns:
        A line for each fit that failed.

    Raises:
        UsageError: If finished fits had other settings than the study.
        KeyboardInterrupt: If the user stopped it; no child is left running.
    """
    done, runs = finished(study), study.runs()
    check_settings(study, done)
    with tqdm(total=len(runs), initial=len(done), desc="study", unit="network") as bar:
        return run_all(study, runs, bar)


def default_output(configs: Sequence[str]) -> Path:
    """Name the folder of a study of some configs.

    Example:
        >>> default_output(["reber_graph.yaml"]).as_posix()
        'study/graphs/reber_graph'
    """
    return Path("study", "graphs", "+".join(Path(config).stem for config in configs))
