"""Magnitude: large weights stay."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.scores.criterion import Criterion, Scores, parameters_of


class Magnitude(Criterion):
    """Scores a weight by its absolute value |θ| (Han et al. 2015). Needs no data."""

    def score(
        self, module: nn.Module, batch: Any, loss_fn: LossFn | None = None, names: Collection[str] | None = None
    ) -> Scores:
        """See :meth:`Criterion.score`; ``batch`` is not looked at."""
        return {name: parameter.detach().abs() for name, parameter in parameters_of(module, names).items()}
