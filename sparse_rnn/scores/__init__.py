"""Pruning criteria, one a file: pure functions of tensors that give every weight a score."""

from sparse_rnn.scores.criterion import Criterion, Scores, criterion_named, criterion_names
from sparse_rnn.scores.graph import Graph
from sparse_rnn.scores.grasp import GraSP
from sparse_rnn.scores.jacobian import JacobianSpectrum
from sparse_rnn.scores.magnitude import Magnitude
from sparse_rnn.scores.random import Random
from sparse_rnn.scores.snip import SNIP
from sparse_rnn.scores.synflow import SynFlow

__all__ = [
    "SNIP",
    "Criterion",
    "GraSP",
    "Graph",
    "JacobianSpectrum",
    "Magnitude",
    "Random",
    "Scores",
    "SynFlow",
    "criterion_named",
    "criterion_names",
]
