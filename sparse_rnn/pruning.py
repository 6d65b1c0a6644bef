"""prune(): capture, score, rank, apply, for any nn.Module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from sparse_rnn.masks import Allocation, Masks, keep_largest
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.layers import gates_of, select_kernels
from sparse_rnn.recurrent.no_trace import leave_no_trace, rng_kept
from sparse_rnn.scores import Criterion, Scores, criterion_named


def prune(
    module: nn.Module,
    batch: Any,
    *,
    sparsity: float,
    criterion: Criterion | str = "jacobian",
    loss_fn: LossFn | None = None,
    kernels: Sequence[str] | None = None,
    allocation: Allocation = "global",
    seed: int = 0,
) -> Masks:
    """Removes the least important recurrent weights of a model: scores them on one batch and sets them to 0, in place.

    Call :meth:`Masks.apply_` after every optimizer step to keep them at 0.

    Args:
        module: The model.
        batch: What ``module.forward`` takes: one tensor, a tuple of positional or a dictionary of keyword arguments.
        sparsity: Share of the weights to remove, at least 0 and below 1.
        criterion: A criterion or its name (``"jacobian"``, ``"snip"``, ``"grasp"``, ``"magnitude"``, ``"random"``).
        loss_fn: ``loss_fn(module, batch)`` runs the model and returns its loss, for criteria that need one.
        kernels: Shell-style patterns of the names of the weights to prune; None for all recurrent kernels.
        allocation: How the weights to keep are shared out: ``global``, ``per_kernel`` or ``per_gate``.
        seed: Seed of all random numbers of the scoring. PyTorch's own generators are left as they were.

    Returns:
        The masks, already applied.

    Raises:
        ValueError: If the model has no recurrent layer, a pattern matches nothing, or a value is out of range.
    """
    with seeded(seed):
        scores = score_batch(module, batch, criterion, loss_fn, kernels)
    masks = rank(module, scores, sparsity, allocation)
    masks.apply_()
    return masks


def score_batch(
    module: nn.Module,
    batch: Any,
    criterion: Criterion | str,
    loss_fn: LossFn | None = None,
    kernels: Sequence[str] | None = None,
) -> Scores:
    """Scores of the chosen weights on one batch; the model is left without a trace of it."""
    chosen = select_kernels(module, kernels)
    with leave_no_trace(module):
        return as_criterion(criterion).score(module, batch, loss_fn, chosen)


def rank(module: nn.Module, scores: Scores, sparsity: float, allocation: Allocation) -> Masks:
    """The masks that keep the weights with the largest scores; nothing is applied yet."""
    return Masks(keep_largest(scores, sparsity, gates_of(module, scores), allocation), module)


def as_criterion(criterion: Criterion | str) -> Criterion:
    """The criterion itself, or the one of that name."""
    return criterion_named(criterion) if isinstance(criterion, str) else criterion


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds PyTorch's generators inside, and gives them back their state on exit."""
    with rng_kept():
        torch.manual_seed(seed)
        yield
