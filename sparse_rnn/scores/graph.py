"""Random graphs as masks: the units of a layer are the nodes, the weights between them the edges."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from sparse_rnn.calls import as_called
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.kernels import Kernel, targets_named
from sparse_rnn.scores.criterion import Criterion, Scores
from sparse_rnn.sparsity.graphs import Family, check_family, random_graph


class Graph(Criterion):
    """Keep the edges of a random graph whose nodes are the units of a layer; the same in every gate. Needs no data.

    A hidden-to-hidden kernel gets a graph of its own; unit i reads the state of unit j where the two have an edge.
    Where the density that is asked for is not that of the graph, edges are removed, or weights added, at random. Other
    kernels have no graph: their weights are kept at random, as many of each as its share is, the same in every gate.

    A parameter that decides on the number of edges (m, k, or p of ``erdos_renyi`` and ``layered``) is chosen to come
    nearest to the density of the whole pruning where it is not given.

    Args:
        family: Kind of graph, see :func:`sparse_rnn.sparsity.random_graph`.
        m: Edges of a new node, of ``barabasi_albert``.
        k: Nearest neighbours on the ring, of ``ring``, ``watts_strogatz`` and ``newman_watts_strogatz``.
        p: Probability of an edge, of its rewiring, or of a shortcut.
        layers: Number of layers, of ``layered``.

    Raises:
        UsageError: If the family is unknown, or does not take a parameter that is given.

    Example:
        >>> from sparse_rnn import prune
        >>> gru = nn.GRU(8, 50)
        >>> masks = prune(gru, None, sparsity=0.9, criterion=Graph("ring"), kernels=["weight_hh_l0"])
        >>> r, z, n = masks["weight_hh_l0"].chunk(3)
        >>> bool((r == z).all() and (z == n).all()), int(r.sum())
        (True, 250)
    """

    short_name = "graph"
    needs_data = False

    def __init__(
        self,
        family: Family = "watts_strogatz",
        m: int | None = None,
        k: int | None = None,
        p: float | None = None,
        layers: int | None = None,
    ) -> None:
        self.family: Family = family
        self.parameters = {"m": m, "k": k, "p": p, "layers": layers}
        check_family(family, self.parameters)
        self.density: float | None = None

    def __repr__(self) -> str:
        return as_called(type(self), vars(self) | self.parameters)

    def at(self, density: float) -> Graph:
        """See :meth:`Criterion.at`."""
        meant = copy.copy(self)
        meant.density = density
        return meant

    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None, names: Collection[str]) -> Scores:
        """See :meth:`Criterion.score`; ``batch`` is not looked at.

        Raises:
            UsageError: If a parameter is out of range for the units of a layer.
        """
        return {name: self._scores(kernel) for name, kernel in targets_named(module, names).items()}

    def _scores(self, kernel: Kernel) -> Tensor:
        """Score by rank, from 0 to 1 in each gate: of all gates and kernels the same share stays."""
        by_gate = kernel.by_gate(kernel.parameter.detach())
        gates, units, inputs = by_gate.shape
        order = torch.rand(units * inputs, dtype=torch.float64, device="cpu")
        if kernel.reads_state and units == inputs:
            order += self._edges(units).flatten()
        ranks = order.argsort().argsort().double() + 0.5
        scores = (ranks / len(ranks)).view(1, units, inputs).expand(gates, units, inputs)
        return scores.reshape(kernel.shape).to(kernel.parameter.device)

    def _edges(self, units: int) -> Tensor:
        seed = int(torch.randint(2**31, (), device="cpu"))
        # No node has an edge to itself: with more than there are, all edges stay, and the diagonal's share at random.
        density = None if self.density is None else min(1.0, self.density * units / max(1, units - 1))
        graph = random_graph(self.family, units, seed, density, **self.parameters)
        return torch.from_numpy(nx.to_numpy_array(graph, nodelist=range(units)))
