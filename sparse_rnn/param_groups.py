"""What an optimizer holds: its parameters, and the options that each of them is trained with."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer


def parameters_of(*optimizers: Optimizer) -> list[nn.Parameter]:
    """Return the parameters of optimizers, in the order in which an optimizer's ``state_dict()`` counts them.

    Args:
        *optimizers: The optimizers, one after the other.

    Returns:
        Their parameters; one that several optimizers train comes several times.

    Example:
        >>> import torch
        >>> layer = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD([{"params": [layer.bias]}, {"params": [layer.weight]}], lr=0.1)
        >>> [tuple(parameter.shape) for parameter in parameters_of(optimizer)]
        [(1,), (1, 2)]
    """
    return [parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]]


def options_of(optimizer: Optimizer) -> dict[nn.Parameter, dict[str, Any]]:
    """Return for each parameter of an optimizer the group that it is in, which has its options.

    Args:
        optimizer: The optimizer.

    Returns:
        Parameter to group: the optimizer's own dictionary, which a schedule of the learning rate changes.

    Example:
        >>> import torch
        >>> layer = nn.Linear(2, 1)
        >>> groups = [{"params": [layer.bias], "lr": 0.5}, {"params": [layer.weight]}]
        >>> options = options_of(torch.optim.SGD(groups, lr=0.1))
        >>> options[layer.bias]["lr"], options[layer.weight]["lr"]
        (0.5, 0.1)
    """
    return {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
