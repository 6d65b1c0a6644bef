"""SNIP: weights stay whose removal would change the loss most."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from sparse_rnn.errors import check_choice
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.kernels import targets_named
from sparse_rnn.scores.criterion import Criterion, Scores
from sparse_rnn.scores.gamma import Gamma, normalise
from sparse_rnn.scores.loss import loss_gradients


class SNIP(Criterion):
    """Connection sensitivity |θ·∂L/∂θ| (Lee, Ajanthan and Torr, ICLR 2019; eq. 9 of Zhang and Stadie 2020).

    Args:
        gamma: ``none``, as published; ``sequence`` or ``author`` divides the scores by |γ| (eq. 7 of Zhang and Stadie,
            see JacobianSpectrum): the normalised row of their Table 2. It exists for recurrent kernels only.
    """

    short_name = "snip"

    def __init__(self, gamma: Gamma = "none") -> None:
        check_choice("gamma", gamma, Gamma)
        self.gamma = gamma

    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None, names: Collection[str]) -> Scores:
        """See :meth:`Criterion.score`; ``loss_fn`` is needed."""
        kernels = targets_named(module, names)
        gradients = loss_gradients(kernels, batch, loss_fn)
        scores = {name: (kernel.parameter.detach() * gradients[name]).abs() for name, kernel in kernels.items()}
        return normalise(scores, self.gamma, kernels, batch, loss_fn)
