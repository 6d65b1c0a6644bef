"""prune(): capture, score, select, apply, for any nn.Module."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import leave_no_trace
from sparse_rnn.pruning.options import described
from sparse_rnn.pruning.rescale import Rescale, layer_chi
from sparse_rnn.pruning.rounds import prune_targets
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.kernels import Targets, find_targets
from sparse_rnn.scores import Criterion, Scores, criterion_named
from sparse_rnn.scores.criterion import criterion_names
from sparse_rnn.sparsity.allocation import Allocation, check_sparsity
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Selection
from sparse_rnn.sparsity.shuffle import check_shuffle
from sparse_rnn.sparsity.tiles import TileScore


@described
def prune(  # noqa: D417 - the shared options are described once, in options.py
    module: nn.Module,
    batch: Any,
    *,
    sparsity: float,
    criterion: Criterion | str = "jacobian",
    loss_fn: LossFn | None = None,
    kernels: Sequence[str] | None = None,
    allocation: Allocation = "global",
    keep_diagonal: bool = False,
    min_kept: int = 0,
    rescale: Rescale = False,
    rounds: int | None = None,
    seed: int = 0,
    block_size: tuple[int, int] | None = None,
    block_score: TileScore = "max",
    shuffle: bool = False,
) -> Masks:
    """Remove the least important recurrent weights of a model: score them on one batch and set them to 0, in place.

    :meth:`Masks.hold` keeps them at 0 while the model is trained.

    Args:
        module: The model.
        batch: What ``module.forward`` takes: one tensor, a tuple of positional or a dictionary of keyword arguments.
        loss_fn: ``loss_fn(module, batch)`` runs the model and returns its loss, for criteria that need one.

    Returns:
        The masks, already applied.

    Raises:
        UsageError: If the model has no recurrent layer, a pattern matches nothing, a value is out of range, or
            what is asked for contradicts itself.

    Example:
        >>> import torch
        >>> lstm = torch.nn.LSTM(8, 50)
        >>> prune(lstm, torch.rand(10, 64, 8), sparsity=0.95)
        Masks(2 kernels, 580 of 11600 weights kept, sparsity 0.9500)
    """
    check_shuffle(shuffle, block_size)
    criterion = as_criterion(criterion, sparsity)
    targets = find_targets(module, kernels)
    masks, notes = prune_targets(
        targets,
        Selection.of(sparsity, allocation, keep_diagonal, min_kept, block_size, block_score),
        score=lambda: score_batch(targets, batch, criterion, loss_fn),
        chi=lambda: layer_chi(targets, batch, loss_fn),
        rounds=criterion.rounds if rounds is None else rounds,
        rescale=rescale,
        seed=seed,
        shuffle=shuffle,
    )
    for note in [*targets.notes, *notes]:
        warnings.warn(note, stacklevel=2)
    return masks


def score_batch(kernels: Targets, batch: Any, criterion: Criterion, loss_fn: LossFn | None = None) -> Scores:
    """Score kernels on one batch; the model is left without a trace of it."""
    with leave_no_trace(kernels.model):
        return criterion.score(kernels.model, batch, loss_fn=loss_fn, names=kernels)


def as_criterion(criterion: Criterion | str, sparsity: float) -> Criterion:
    """Return the criterion itself, or the one of that name, for a final sparsity.

    Raises:
        UsageError: If the sparsity is outside [0, 1), there is no criterion of that name, or it is none.
    """
    check_sparsity(sparsity)
    found = criterion_named(criterion) if isinstance(criterion, str) else criterion
    if not isinstance(found, Criterion):
        raise UsageError(f"criterion={found!r}: give a criterion, or the name of one ({', '.join(criterion_names())}).")
    return found.at(1 - sparsity)
