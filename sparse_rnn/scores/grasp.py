"""GraSP: weights stay that carry the flow of gradients. Zhang and Stadie (2020) call it Foresight."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.overrides import TorchFunctionMode

from sparse_rnn.checks import check_number
from sparse_rnn.errors import check_choice
from sparse_rnn.process_settings import eager, math_attention
from sparse_rnn.recurrent.capture import LossFn, standing_in
from sparse_rnn.recurrent.finding import describable_modules
from sparse_rnn.recurrent.kernels import Targets, targets_named
from sparse_rnn.recurrent.plain import run_layer
from sparse_rnn.scores.criterion import Criterion, Scores
from sparse_rnn.scores.gamma import Gamma, normalise
from sparse_rnn.scores.loss import loss_gradients


class GraSP(Criterion):
    """θ·(Hg) (Wang, Zhang and Grosse, ICLR 2020; eq. 8 of Zhang and Stadie 2020): the largest stay, signs counted.

    g is the gradient of the loss and H its Hessian; Hg is the gradient of gᵀ·stop(g). Fused operations cannot be
    differentiated twice, so recurrent layers and attention run as plain ones meanwhile, and compiled models as they
    were written; dropout between the layers of one module is left out. A batch with 10 to 25 samples of each class was
    used originally.

    Args:
        temperature: Divides the logits of every cross-entropy in the loss (the authors' code: 200). A loss without
            ``torch.nn.functional.cross_entropy`` or ``nn.CrossEntropyLoss`` is not affected.
        gamma: ``none``, as published; ``sequence`` or ``author`` divides the scores by |γ| (eq. 7 of Zhang and Stadie,
            see JacobianSpectrum): the normalised row of their Table 2. It exists for recurrent kernels only.
    """

    short_name = "grasp"

    def __init__(self, temperature: float = 200.0, gamma: Gamma = "none") -> None:
        check_number("temperature", temperature, "(0, inf)", hint="200 in the authors' code, 1 for none")
        check_choice("gamma", gamma, Gamma)
        self.temperature = temperature
        self.gamma = gamma

    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None, names: Collection[str]) -> Scores:
        """See :meth:`Criterion.score`; ``loss_fn`` is needed."""
        kernels = targets_named(module, names)
        # Gradients flow through the recurrent layers that are not scored, too.
        scored = {found.module for found in kernels.recurrent}
        others = [found for found in describable_modules(module) if found.module not in scored]
        with (
            eager(),
            math_attention(),
            standing_in([*kernels.recurrent, *others], run_layer),
            _Temperature(self.temperature),
        ):
            product = _hessian_gradient_product(kernels, batch, loss_fn)
        scores = {name: kernel.parameter.detach() * product[name] for name, kernel in kernels.items()}
        return normalise(scores, self.gamma, kernels, batch, loss_fn)


def _hessian_gradient_product(kernels: Targets, batch: Any, loss_fn: LossFn | None) -> dict[str, Tensor]:
    """H·g, of one evaluation of the loss: another one might drop out other units, or sample other classes."""

    def directional(module: nn.Module, batch: Any) -> Tensor:
        g = loss_gradients(kernels, batch, loss_fn, create_graph=True)
        return torch.stack([(part * part.detach()).sum() for part in g.values()]).sum()

    return loss_gradients(kernels, batch, directional)


class _Temperature(TorchFunctionMode):
    """Divides the logits of every cross-entropy."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Pass every function on, cross-entropies with cooler logits."""
        function = self._cooler_cross_entropy if func is cross_entropy else func
        return function(*args, **(kwargs or {}))

    def _cooler_cross_entropy(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return cross_entropy(input / self.temperature, *args, **kwargs)
