"""Masks shuffled inside every kernel and gate: a control that keeps where the weights are, but not which."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sparse_rnn.checks import check_flag
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.sparsity.growth import random_scores
from sparse_rnn.sparsity.masks import Masks


def shuffled(kernels: Targets, masks: Mapping[str, Tensor], fixed: Mapping[str, Tensor], seed: int) -> Masks:
    """Move the kept weights to random places of the same gate (Frankle et al. 2021, arXiv 2009.08576).

    What a network loses by that is what the choice of single weights was worth; where it loses nothing, a criterion
    has only shared the weights out among kernels and gates.

    Args:
        kernels: The kernels.
        masks: The weights that are kept.
        fixed: Name to a mask [gates, units, inputs] of what stays where it is.
        seed: Decides the places, with nothing else, so that ranks agree.

    Returns:
        Other masks, of equally many weights in each gate of each kernel.

    Example:
        >>> from sparse_rnn.recurrent import find_targets
        >>> targets = find_targets(torch.nn.GRU(3, 4))
        >>> masks = {name: kernel.parameter > 0 for name, kernel in targets.items()}
        >>> free = {name: torch.zeros(len(kernel.gates), 4, kernel.shape[1]) > 0 for name, kernel in targets.items()}
        >>> shuffled(targets, masks, free, seed=0).kept == sum(int(mask.sum()) for mask in masks.values())
        True
    """
    moved = {}
    for number, (name, mask) in enumerate(masks.items()):
        by_gate = kernels[name].by_gate(mask)
        gates = zip(by_gate, fixed[name], random_scores(by_gate, seed % 2**64, number), strict=True)
        moved[name] = torch.stack([_shuffled(*gate) for gate in gates]).reshape(mask.shape)
    return Masks.of(kernels, moved)


def check_shuffle(shuffle: bool, block_size: tuple[int, int] | None) -> None:
    """Refuse what neither asks to shuffle nor not to, and to shuffle tiles.

    Args:
        shuffle: Whether masks are to be shuffled.
        block_size: Units and inputs of a tile, if there are tiles.

    Raises:
        UsageError: If it is neither, or both are asked for.

    Example:
        >>> check_shuffle(True, None)
    """
    check_flag("shuffle", shuffle)
    if shuffle and block_size is not None:
        raise UsageError("shuffle=True moves single weights, but block_size keeps tiles together: leave one out.")


def _shuffled(gate: Tensor, fixed: Tensor, order: Tensor) -> Tensor:
    free = (~fixed).flatten().nonzero().squeeze(1)
    places = free[order.flatten()[free].argsort(stable=True)]
    return gate.flatten().index_copy(0, free, gate.flatten()[places]).view_as(gate)
