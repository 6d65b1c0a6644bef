"""Gradients of the loss, for the criteria that need them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.errors import UsageError
from sparse_rnn.process_settings import cudnn_off
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.recurrent.weight_drop import whole_weights


def loss_gradients(
    kernels: Targets, batch: Any, loss_fn: LossFn | None, create_graph: bool = False
) -> dict[str, Tensor]:
    """Return the gradient of the loss with respect to some kernels; their ``.grad`` is not touched.

    Returns:
        Name to gradient, shaped as the parameter; zeros where the loss does not depend on it.

    Raises:
        UsageError: If there is no loss function, or it returns no scalar that depends on any of the parameters.
    """
    if loss_fn is None:
        raise UsageError("This criterion needs a loss: give loss_fn, a function of (module, batch) that returns it.")
    parameters = [kernel.parameter for kernel in kernels.values()]
    with torch.enable_grad(), cudnn_off(), whole_weights(), _requiring_gradients(parameters):
        loss = loss_fn(kernels.model, batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise UsageError(
                f"The loss is {_described(loss)}: loss_fn must return a scalar tensor that depends on the weights."
            )
        gradients = torch.autograd.grad(
            loss.sum(), parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
    # Those of nn.Embedding(sparse=True) are sparse.
    dense = (gradient.to_dense() if gradient.is_sparse else gradient for gradient in gradients)
    return dict(zip(kernels, dense, strict=True))


def _described(loss: Any) -> str:
    if not isinstance(loss, Tensor):
        return f"a {type(loss).__name__}"
    return f"a tensor of shape {tuple(loss.shape)}" + ("" if loss.requires_grad else " without a gradient")


@contextmanager
def _requiring_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let frozen weights require gradients inside: they have scores, too."""
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_()
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
