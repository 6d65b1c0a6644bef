"""Products with a parameter, as torch's functions are called while a model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PRODUCTS: Mapping[Any, int] = {
    F.linear: 1,
    torch.linalg.vecdot: 1,
    torch.matmul: 0,
    torch.mm: 0,
    Tensor.matmul: 0,
    Tensor.mm: 0,
    Tensor.__matmul__: 0,
}
"""What multiplies its first argument by its second, a parameter, and the dimension of that which is summed over."""

_TAKE_ROWS = (Tensor.__getitem__, Tensor.split, torch.split, F.embedding)
_ROWS_OF = "sparse_rnn_rows_of"


def factor(func: Any, args: Sequence[Any]) -> Any:
    """Return the parameter that a function multiplies its first argument by, or of which it takes some rows for that.

    What else it multiplies by is returned as it is; None if it is no product.
    """
    if func not in PRODUCTS or len(args) < 2:
        return None
    return getattr(args[1], _ROWS_OF, args[1])


def remember_rows(func: Any, args: Sequence[Any], result: Any) -> Any:
    """Note at a result, which is returned, that it is rows of a parameter, where the function has taken some."""
    if func in _TAKE_ROWS:
        taken_from = args[1] if func is F.embedding else args[0]
        weight = getattr(taken_from, _ROWS_OF, taken_from)
        if isinstance(weight, nn.Parameter) and weight.dim() == 2:
            for part in result if isinstance(result, tuple) else (result,):
                if part.shape[-1:] == weight.shape[-1:]:
                    setattr(part, _ROWS_OF, weight)
    return result


def embeds(model: nn.Module, parameter: str) -> bool:
    """Tell whether a parameter's name is that of the weight of an embedding."""
    return isinstance(model.get_submodule(parameter.rpartition(".")[0]), nn.Embedding)
