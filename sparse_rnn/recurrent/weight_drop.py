"""Weight drop: DropConnect on the recurrent kernels of a layer, for the length of one call.

The dropped kernels are other tensors, which stand in the layer only while it is called. Its parameters stay what and
where they are, so that masks, optimizers, averages and checkpoints know nothing of it, and the layer computes as it is:
fused, by the sparse engine, or unrolled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sparse_rnn.recurrent.parameters import plain_parameters
from sparse_rnn.recurrent.registry import entry_of
from sparse_rnn.torch_compat import parameters_replaced

_OF_STATES = ("hh", "ch")  # roles of the kernels that read a state of their own layer

_WHOLE: ContextVar[bool] = ContextVar("whole", default=False)
_DROPPED: ContextVar[tuple[Tensor, ...]] = ContextVar("dropped", default=())


def run_dropped(module: nn.Module, p: float, input: Any, hx: Any = None) -> Any:
    """Call a recurrent module with a share of its hidden-to-hidden weights dropped, in training.

    Each weight of ``weight_hh`` (and ``weight_ch``) is 0 with probability p, and divided by 1 - p otherwise, for all
    steps and sequences of the call (Merity, Keskar and Socher 2018, arXiv 1708.02182, section 2, after Wan et al.
    2013). Gradients reach the parameters through the weights that were kept. A weight of 0 stays 0, so that
    what a mask has removed is removed from the dropped weights too.

    In evaluation, with p = 0 and inside :func:`whole_weights` it is ``module(input, hx)``, and draws no random number.

    Args:
        module: An ``nn.RNN``, ``nn.GRU``, ``nn.LSTM``, or a layer of this package.
        p: Probability of dropping a weight.
        input: What the module is called with.
        hx: Its initial state.

    Returns:
        What the module returns.

    Raises:
        UsageError: If one of these kernels is computed from other parameters, as by ``weight_norm``.

    Example:
        >>> import torch
        >>> lstm = nn.LSTM(3, 4)
        >>> output, state = run_dropped(lstm, 0.5, torch.randn(5, 2, 3))
        >>> output.sum().backward()
        >>> bool((lstm.weight_hh_l0.grad == 0).any()), list(lstm.state_dict())[:2]
        (True, ['weight_ih_l0', 'weight_hh_l0'])
    """
    if not module.training or p == 0 or _WHOLE.get():
        return module(input, hx)
    kernels = _recurrent_kernels(module)
    drawn = {weight: F.dropout(weight, p) for weight in dict.fromkeys(kernels.values())}  # once where they are tied
    dropped = {name: drawn[weight] for name, weight in kernels.items()}
    token = _DROPPED.set(tuple(drawn.values()))
    try:
        with parameters_replaced(module, dropped):
            return module(input, hx)
    finally:
        _DROPPED.reset(token)


def _recurrent_kernels(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the kernels that read a state, by their names in the module."""
    entry = entry_of(module)
    if entry is None or entry.own:
        return {}
    places = [place for directions in entry.places(module, "") for place in directions]
    paths = [place.path(entry.kernels[role]) for place in places for role in _OF_STATES]
    return plain_parameters(module, "", {path: path for path in paths if getattr(module, path, None) is not None})


@contextmanager
def whole_weights() -> Iterator[None]:
    """Drop no weight inside: a score of a weight that happens to be dropped would say nothing about it.

    Example:
        >>> import torch
        >>> gru = nn.GRU(3, 4)
        >>> x = torch.randn(5, 2, 3)
        >>> with whole_weights():
        ...     torch.equal(run_dropped(gru, 0.5, x)[0], gru(x)[0])
        True
    """
    token = _WHOLE.set(True)
    try:
        yield
    finally:
        _WHOLE.reset(token)


def is_dropped(tensor: Tensor) -> bool:
    """Tell whether a tensor is a kernel with dropped weights, inside the call that they are dropped for.

    Example:
        >>> import torch
        >>> is_dropped(torch.ones(1))
        False
    """
    return any(tensor is dropped for dropped in _DROPPED.get())
