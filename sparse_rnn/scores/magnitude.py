"""Magnitude: large weights stay."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.kernels import targets_named
from sparse_rnn.scores.criterion import Criterion, Scores


class Magnitude(Criterion):
    """Score a weight by its absolute value |θ| (Han et al. 2015). Needs no data."""

    short_name = "magnitude"
    needs_data = False

    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None, names: Collection[str]) -> Scores:
        """See :meth:`Criterion.score`; ``batch`` is not looked at."""
        return {name: kernel.parameter.detach().abs() for name, kernel in targets_named(module, names).items()}
