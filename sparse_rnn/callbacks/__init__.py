"""Callbacks for Lightning: methods of pruning, and what saves, watches and tests the networks that they prune."""

from sparse_rnn.callbacks.base import PruningCallback
from sparse_rnn.callbacks.checkpoint import SparseCheckpoint
from sparse_rnn.callbacks.dynamic import DynamicSparsity
from sparse_rnn.callbacks.dynamic_evaluation import DynamicEvaluation
from sparse_rnn.callbacks.gradual import GradualPruning
from sparse_rnn.callbacks.iterative import IterativePruning
from sparse_rnn.callbacks.lottery import LotteryTicket
from sparse_rnn.callbacks.monitor import SparsityMonitor
from sparse_rnn.callbacks.narang import NarangPruning
from sparse_rnn.callbacks.one_shot import OneShotPruning
from sparse_rnn.callbacks.predictions import PredictionFile
from sparse_rnn.callbacks.rate_by_fan_in import RateByFanIn
from sparse_rnn.callbacks.scheduled import ScheduledPruning, Update
from sparse_rnn.callbacks.structured import StructuredPruning
from sparse_rnn.callbacks.unit_lasso import UnitLasso

__all__ = [
    "DynamicEvaluation",
    "DynamicSparsity",
    "GradualPruning",
    "IterativePruning",
    "LotteryTicket",
    "NarangPruning",
    "OneShotPruning",
    "PredictionFile",
    "PruningCallback",
    "RateByFanIn",
    "ScheduledPruning",
    "SparseCheckpoint",
    "SparsityMonitor",
    "StructuredPruning",
    "UnitLasso",
    "Update",
]
