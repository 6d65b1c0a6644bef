"""Random scores: the baseline that one-shot criteria for recurrent networks have to beat."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.scores.criterion import Criterion, Scores, parameters_of


class Random(Criterion):
    """Scores every weight by an independent uniform number in [0, 1). Needs no data."""

    def score(
        self, module: nn.Module, batch: Any, loss_fn: LossFn | None = None, names: Collection[str] | None = None
    ) -> Scores:
        """See :meth:`Criterion.score`; ``batch`` is not looked at."""
        parameters = parameters_of(module, names)
        return {name: torch.rand(parameter.shape).to(parameter.device) for name, parameter in parameters.items()}
