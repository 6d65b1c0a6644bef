"""Matrix products as fast as the machine has them, in the type of what is multiplied, and sums of them."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from sparse_rnn.torch_compat import onednn_linear

Function = TypeVar("Function", bound=Callable[..., Any])


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b; in float32 on a CPU by oneDNN, which nn.LSTM uses too: PyTorch's BLAS can be much slower.

    Args:
        a: [..., M, K].
        b: [K, N].
    """
    if onednn_multiplies(a):
        weight = b.t()
        if not (weight.is_contiguous() or b.is_contiguous()):
            # A strided slice, and oneDNN silently takes its reference loop, slower by orders of magnitude.
            weight = weight.contiguous()
        return onednn_linear(a, weight)
    return a @ b


def add_product_(target: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to the target in place, in one kernel where the backend has one."""
    if onednn_multiplies(a):
        target += product(a, b)
    else:
        target.addmm_(a, b)


def add(terms: Iterable[Tensor]) -> Tensor:
    """Sum one or more tensors."""
    first, *others = terms
    return sum(others, first)


def onednn_multiplies(a: Tensor) -> bool:
    """Tell whether products with a tensor on the left go to oneDNN, which takes no empty ones."""
    backend = torch.backends.mkldnn
    fits = a.device.type == "cpu" and a.dtype == torch.float32 and a.numel() > 0
    return fits and bool(backend.enabled) and backend.is_available()


def without_autocast(device_type: str) -> AbstractContextManager:
    """Leave autocast: a backward pass computes in the type of its forward pass, and a score in that of its layer."""
    available = torch.amp.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if available else nullcontext()


def in_own_precision(function: Function) -> Function:
    """Let a function whose first argument is an unrolled layer compute in the layer's type, inside autocast too."""

    @wraps(function)
    def outside(unrolled: Any, *args: Any, **kwargs: Any) -> Any:
        with without_autocast(unrolled.x_TBI.device.type):
            return function(unrolled, *args, **kwargs)

    return cast(Function, outside)
