"""SNIP: weights stay whose removal would change the loss most."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.scores.criterion import Criterion, Scores, check_choice, parameters_of
from sparse_rnn.scores.gamma import Gamma, normalise
from sparse_rnn.scores.loss import loss_gradients


class SNIP(Criterion):
    """Connection sensitivity |θ·∂L/∂θ| (Lee, Ajanthan and Torr, ICLR 2019; eq. 9 of Zhang and Stadie 2020).

    Args:
        gamma: ``none``, as published; ``sequence`` or ``author`` divides the scores by |γ| (eq. 7 of Zhang and Stadie,
            see JacobianSpectrum): the normalised row of their Table 2. It exists for recurrent kernels only.
    """

    def __init__(self, gamma: Gamma = "none") -> None:
        check_choice("gamma", gamma, Gamma)
        self.gamma = gamma

    def score(
        self, module: nn.Module, batch: Any, loss_fn: LossFn | None = None, names: Collection[str] | None = None
    ) -> Scores:
        """See :meth:`Criterion.score`; ``loss_fn`` is needed."""
        parameters = parameters_of(module, names)
        gradients = loss_gradients(module, batch, loss_fn, parameters)
        scores = {name: (parameter.detach() * gradients[name]).abs() for name, parameter in parameters.items()}
        return normalise(scores, self.gamma, module, batch, loss_fn)
