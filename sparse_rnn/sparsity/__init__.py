"""What a mask is: which weights are ranked together, which of them stay, and what is left."""

from sparse_rnn.sparsity.allocation import Allocation, Group, allocate
from sparse_rnn.sparsity.connections import Connections
from sparse_rnn.sparsity.graphs import LayeredGraph, graph_of, random_graph, structure_of
from sparse_rnn.sparsity.growth import drop_and_grow, random_scores
from sparse_rnn.sparsity.guards import Guards
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Selection
from sparse_rnn.sparsity.statistics import GateStatistics, emptied, table
from sparse_rnn.sparsity.tiles import Tiles

__all__ = [
    "Allocation",
    "Connections",
    "GateStatistics",
    "Group",
    "Guards",
    "LayeredGraph",
    "Masks",
    "Selection",
    "Tiles",
    "allocate",
    "drop_and_grow",
    "emptied",
    "graph_of",
    "random_graph",
    "random_scores",
    "structure_of",
    "table",
]
