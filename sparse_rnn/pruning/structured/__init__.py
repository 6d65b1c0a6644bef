"""Smaller layers: units of recurrent layers go, and what reads them is made up for that."""

from sparse_rnn.pruning.structured.choice import unit_criterion
from sparse_rnn.pruning.structured.column_sparsification import ColumnSparsification
from sparse_rnn.pruning.structured.exact import Exact
from sparse_rnn.pruning.structured.low_rank import LowRank
from sparse_rnn.pruning.structured.optimizers import shrink_with_optimizers_
from sparse_rnn.pruning.structured.random_units import RandomUnits
from sparse_rnn.pruning.structured.shrink import Edit, edits, shrink, shrink_
from sparse_rnn.pruning.structured.spectral import Spectral
from sparse_rnn.pruning.structured.unit_criterion import UnitCriterion
from sparse_rnn.pruning.structured.unit_magnitude import UnitMagnitude
from sparse_rnn.pruning.structured.units import Plan, Reader, UnitPlan, Writer

__all__ = [
    "ColumnSparsification",
    "Edit",
    "Exact",
    "LowRank",
    "Plan",
    "RandomUnits",
    "Reader",
    "Spectral",
    "UnitCriterion",
    "UnitMagnitude",
    "UnitPlan",
    "Writer",
    "edits",
    "shrink",
    "shrink_",
    "shrink_with_optimizers_",
    "unit_criterion",
]
