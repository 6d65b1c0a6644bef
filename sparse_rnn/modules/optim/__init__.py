"""Optimizers for matrices of which a step touches few rows, averages of SGD, and learning rate schedules."""

from sparse_rnn.modules.optim.nt_asgd import NTASGD, non_monotonic
from sparse_rnn.modules.optim.row_adam import RowAdam
from sparse_rnn.modules.optim.row_gradients import (
    RowGradients,
    clip_gradients_,
    exchange_rows,
    require_sparse,
    row_names,
    row_parameters,
)
from sparse_rnn.modules.optim.schedule import CosineAnnealing, Decay, LinearDecay
from sparse_rnn.modules.optim.settings import settings_of

__all__ = [
    "NTASGD",
    "CosineAnnealing",
    "Decay",
    "LinearDecay",
    "RowAdam",
    "RowGradients",
    "clip_gradients_",
    "exchange_rows",
    "non_monotonic",
    "require_sparse",
    "row_names",
    "row_parameters",
    "settings_of",
]
