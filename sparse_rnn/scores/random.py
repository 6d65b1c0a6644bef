"""Random scores: the baseline that one-shot criteria for recurrent networks have to beat."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.layers import kernel_gates
from sparse_rnn.scores.criterion import Criterion, Scores


class Random(Criterion):
    """Scores every weight by an independent uniform number in [0, 1). Needs no data."""

    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None = None) -> Scores:
        """See :meth:`Criterion.score`; ``batch`` is not looked at."""
        parameters = {name: module.get_parameter(name) for name in kernel_gates(module)}
        return {name: torch.rand(parameter.shape).to(parameter.device) for name, parameter in parameters.items()}
