"""Pruning of any nn.Module: score, select, apply, in one round or several; schedules; rescaling."""

from sparse_rnn.pruning.prune import prune
from sparse_rnn.pruning.rounds import prune_targets
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, IterativeSteps, NarangRamp, Schedule
from sparse_rnn.pruning.timetable import Timetable

__all__ = [
    "CosineDecay",
    "Cubic",
    "IterativeSteps",
    "NarangRamp",
    "Schedule",
    "Timetable",
    "prune",
    "prune_targets",
]
