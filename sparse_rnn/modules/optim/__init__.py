"""Optimize large matrices of which a step touches few rows, such as embeddings."""

from sparse_rnn.modules.optim.row_adam import RowAdam
from sparse_rnn.modules.optim.row_gradients import (
    RowGradients,
    clip_gradients_,
    exchange_rows,
    require_sparse,
    row_names,
    row_parameters,
)
from sparse_rnn.modules.optim.settings import settings_of

__all__ = [
    "RowAdam",
    "RowGradients",
    "clip_gradients_",
    "exchange_rows",
    "require_sparse",
    "row_names",
    "row_parameters",
    "settings_of",
]
