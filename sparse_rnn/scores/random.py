"""Random scores: the baseline that one-shot criteria for recurrent networks have to beat."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.kernels import targets_named
from sparse_rnn.scores.criterion import Criterion, Scores


class Random(Criterion):
    """Score every weight by an independent uniform number in [0, 1). Needs no data."""

    short_name = "random"
    needs_data = False

    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None, names: Collection[str]) -> Scores:
        """See :meth:`Criterion.score`; ``batch`` is not looked at."""
        kernels = targets_named(module, names)
        drawn = {name: torch.rand(kernel.shape, device="cpu", dtype=torch.float32) for name, kernel in kernels.items()}
        return {name: values.to(kernels[name].parameter.device) for name, values in drawn.items()}
