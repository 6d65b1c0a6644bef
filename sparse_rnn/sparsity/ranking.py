"""Ranking: the best weights of a group, and those that stay whatever the others score."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sparse_rnn.errors import UsageError
from sparse_rnn.sparsity.allocation import Group

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
    return torch.as_tensor(np.partition(comparable.detach().numpy(), k - 1)[k - 1]).to(values)


def fill_(keep: Sequence[Tensor], scores: Sequence[Tensor], count: int) -> None:
    """Add the best weights to masks of any shape, in place, until they keep ``count`` together."""
    kept, values = torch.cat([mask.flatten() for mask in keep]), torch.cat([score.flatten() for score in scores])
    kept[~kept] = best(values[~kept], count - int(kept.count_nonzero()))
    for mask, part in zip(keep, kept.split([mask.numel() for mask in keep]), strict=True):
        mask.copy_(part.view_as(mask))


def empty(like: ByGate) -> dict[str, Tensor]:
    """Make masks that keep nothing, laid out in memory as weights are, however ``like`` is."""
    return {name: torch.zeros(values.shape, dtype=torch.bool, device=values.device) for name, values in like.items()}


def diagonals(scores: ByGate, kernels: Collection[str]) -> dict[str, Tensor]:
    """Make masks [gates, units, inputs] that keep the diagonal of each square gate of some kernels.

    Raises:
        UsageError: If there is none.
    """
    square = [name for name in kernels if name in scores and scores[name].shape[1] == scores[name].shape[2]]
    if not square:
        raise UsageError(
            f"keep_diagonal=True, but none of the kernels to prune is recurrent and square: {', '.join(scores)}; "
            "leave it out."
        )
    masks = empty(scores)
    for name in square:
        masks[name].diagonal(dim1=1, dim2=2).fill_(True)
    return masks


def check_room(groups: Sequence[Group], keep: ByGate) -> None:
    """Refuse masks that keep more weights of a group than are to stay there with a UsageError."""
    for group in groups:
        room = _room(group, keep)
        if room < 0:
            raise UsageError(
                f"keep_diagonal=True keeps {group.kept - room} weights of {group.name}, but only {group.kept} of "
                f"{group.total} are to stay there: lower the sparsity, or leave keep_diagonal out."
            )


def reserve_(keep: ByGate, scores: ByGate, groups: Sequence[Group], min_kept: int) -> None:
    """Add to masks, in place, the best weights of every gate and neuron that keeps fewer than ``min_kept``.

    Gates come first. Then every neuron asks for its best weights; a group that cannot grant them all grants the best
    of them, and the neurons it refused ask elsewhere.

    Args:
        keep: Masks [gates, units, inputs] by parameter name.
        scores: Scores of the same shapes.
        groups: The groups that the weights are ranked in; none keeps more than its count.
        min_kept: Number of weights that each gate, and each unit over all gates of a kernel, keeps at least.

    Raises:
        UsageError: If the counts of the groups do not allow it.
    """
    for group in groups:
        for name, g in group.gates:
            gate = keep[name][g]
            if min_kept > gate.numel():
                raise _impossible(min_kept, name)
            fill_([gate], [scores[name][g]], max(min_kept, int(gate.count_nonzero())))
        if _room(group, keep) < 0:
            raise _impossible(min_kept, group.name)
    while requests := {
        name: asked for name in keep if (asked := _requests(name, keep, scores, groups, min_kept)).any()
    }:
        for group in groups:
            _grant_(group, keep, scores, requests)
    for name, mask in keep.items():
        if (mask.sum((0, 2)) < min_kept).any():
            raise _impossible(min_kept, name)


def _requests(name: str, keep: ByGate, scores: ByGate, groups: Sequence[Group], min_kept: int) -> Tensor:
    """Find the best weights of each unit that lacks some, in groups that have room, [gates, units, inputs]."""
    kept, score = keep[name], scores[name]
    full = [g for group in groups if _room(group, keep) == 0 for kernel, g in group.gates if kernel == name]
    free = ~kept & (score > -torch.inf)  # what an earlier round removed does not come back
    free[full] = False
    by_unit = score.masked_fill(~free, -torch.inf).transpose(0, 1)
    lacking = (min_kept - kept.sum((0, 2))).clamp(min=0)
    order = by_unit.flatten(1).argsort(dim=1, descending=True, stable=True)
    first = torch.arange(order.shape[1], device=order.device) < lacking.unsqueeze(1)
    asked = torch.zeros_like(first).scatter(1, order, first)
    return asked.view(by_unit.shape).transpose(0, 1) & free


def _grant_(group: Group, keep: ByGate, scores: ByGate, requests: ByGate) -> None:
    """Add the weights of a group that were asked for to its masks, or the best of them, as many as it has room for."""
    gates = [(name, g) for name, g in group.gates if name in requests]
    if not gates:
        return
    asked = torch.cat([requests[name][g].flatten() for name, g in gates])
    values = torch.cat([scores[name][g].flatten() for name, g in gates])[asked]
    asked[asked.clone()] = best(values, min(_room(group, keep), len(values)))
    for (name, g), part in zip(gates, asked.split([keep[name][g].numel() for name, g in gates]), strict=True):
        keep[name][g] |= part.view_as(keep[name][g])


def check_numbers(scores: Mapping[str, Tensor]) -> None:
    """Refuse scores that are no numbers with a UsageError."""
    for name, score in scores.items():
        if torch.isnan(score).any():
            raise UsageError(
                f"{int(torch.isnan(score).sum())} scores of {name} are NaN: the model's activations or weights are not "
                "finite; check the initialisation and the input scale, or take another criterion."
            )


def _room(group: Group, keep: ByGate) -> int:
    return group.kept - sum(int(keep[name][g].count_nonzero()) for name, g in group.gates)


def _impossible(min_kept: int, name: str) -> UsageError:
    return UsageError(
        f"min_kept={min_kept}: too few weights are to stay in {name} for each of its gates and neurons to keep "
        f"{min_kept}; lower min_kept or the sparsity."
    )
