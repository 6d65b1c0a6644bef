"""Gradients of the loss, for the criteria that need them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.recurrent.capture import LossFn


def loss_gradients(
    module: nn.Module,
    batch: Any,
    loss_fn: LossFn | None,
    parameters: Mapping[str, nn.Parameter],
    create_graph: bool = False,
) -> dict[str, Tensor]:
    """The gradient of the loss with respect to some parameters; their ``.grad`` is not touched.

    Returns:
        Parameter name to gradient, shaped as the parameter; zeros where the loss does not depend on it.

    Raises:
        ValueError: If there is no loss function, or it returns no scalar that depends on any of the parameters.
    """
    if loss_fn is None:
        raise ValueError("This criterion needs a loss: give loss_fn, a function of (module, batch) that returns it.")
    # cuDNN refuses the backward pass of a recurrent layer in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), _requiring_gradients(parameters.values()):
        loss = loss_fn(module, batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise ValueError(
                f"The loss is {_described(loss)}: loss_fn must return a scalar tensor that depends on the weights."
            )
        gradients = torch.autograd.grad(
            loss.sum(), list(parameters.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
    return dict(zip(parameters, gradients, strict=True))


def _described(loss: Any) -> str:
    if not isinstance(loss, Tensor):
        return f"a {type(loss).__name__}"
    return f"a tensor of shape {tuple(loss.shape)}" + ("" if loss.requires_grad else " without a gradient")


@contextmanager
def _requiring_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """A frozen weight has a score, too."""
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_()
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
