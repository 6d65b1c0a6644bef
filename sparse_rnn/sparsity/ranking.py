"""Ranking: the best weights of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sparse_rnn.errors import UsageError

ByGate = Mapping[str, Tensor]
"""Tensors [gates, units, inputs] by the name of the kernel."""


def best(scores: Tensor, count: int) -> Tensor:
    """Mask of the ``count`` largest of a flat tensor; the earlier of equal scores wins.

    Example:
        >>> best(torch.tensor([3.0, 5.0, 3.0, 1.0]), 2)
        tensor([ True,  True, False, False])
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = _kth_smallest(scores, scores.numel() - count + 1)
    keep = scores > threshold
    ties = (scores == threshold).nonzero().flatten()
    keep[ties[: count - int(keep.count_nonzero())]] = True
    return keep


def _kth_smallest(values: Tensor, k: int) -> Tensor:
    """On a CPU by NumPy, whose selection takes a fifth of the time of PyTorch's on millions of numbers."""
    if values.device.type != "cpu":
        return values.kthvalue(k).values
    # float32 holds every bfloat16, which NumPy does not know
    comparable = values.float() if values.dtype == torch.bfloat16 else values
    found = np.partition(comparable.detach().numpy(), k - 1)[k - 1]
    return torch.as_tensor(found, device=values.device).to(values.dtype)


def fill_(keep: Sequence[Tensor], scores: Sequence[Tensor], count: int) -> None:
    """Add the best weights to masks of any shape, in place, until they keep ``count`` together."""
    kept, values = torch.cat([mask.flatten() for mask in keep]), torch.cat([score.flatten() for score in scores])
    kept[~kept] = best(values[~kept], count - int(kept.count_nonzero()))
    for mask, part in zip(keep, kept.split([mask.numel() for mask in keep]), strict=True):
        mask.copy_(part.view_as(mask))


def empty(like: ByGate) -> dict[str, Tensor]:
    """Make masks that keep nothing, laid out in memory as weights are, however ``like`` is."""
    return {name: torch.zeros(values.shape, dtype=torch.bool, device=values.device) for name, values in like.items()}


def check_numbers(scores: Mapping[str, Tensor]) -> None:
    """Refuse scores that are no numbers with a UsageError."""
    for name, score in scores.items():
        if torch.isnan(score).any():
            raise UsageError(
                f"{int(torch.isnan(score).sum())} scores of {name} are NaN: the model's activations or weights are not "
                "finite; check the initialisation and the input scale, or take another criterion."
            )
