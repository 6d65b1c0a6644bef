"""Prune recurrent networks in PyTorch and PyTorch Lightning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparse_rnn.pruning import prune
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.registry import register_cell
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU
from sparse_rnn.scores import SNIP, Criterion, Graph, GraSP, JacobianSpectrum, Magnitude, Random, SynFlow
from sparse_rnn.sparsity.masks import Masks

if TYPE_CHECKING:
    from sparse_rnn.callbacks import (
        DynamicSparsity,
        GradualPruning,
        IterativePruning,
        LotteryTicket,
        NarangPruning,
        OneShotPruning,
        RateByFanIn,
        SparseCheckpoint,
        SparsityMonitor,
        StructuredPruning,
        UnitLasso,
    )

__version__ = "0.2.0"
__all__ = [
    "SNIP",
    "Criterion",
    "DynamicSparsity",
    "GraSP",
    "GradualPruning",
    "Graph",
    "IterativePruning",
    "JacobianSpectrum",
    "LotteryTicket",
    "Magnitude",
    "Masks",
    "NarangPruning",
    "OneShotPruning",
    "PeepholeLSTM",
    "Random",
    "RateByFanIn",
    "ResetBeforeGRU",
    "SparseCheckpoint",
    "SparsityMonitor",
    "StructuredPruning",
    "SynFlow",
    "UnitLasso",
    "prune",
    "register_cell",
]


def __getattr__(name: str) -> Any:
    """Import Lightning only when a callback is asked for: ``prune`` needs nothing but PyTorch."""
    if name in __all__:
        return getattr(import_module("sparse_rnn.callbacks"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
