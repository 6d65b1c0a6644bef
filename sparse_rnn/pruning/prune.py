"""prune(): capture, score, rank, apply, for any nn.Module."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.isolation import leave_no_trace, rng_kept
from sparse_rnn.pruning.rescale import LayerChi, Rescale, layer_chi, rescaling
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.layers import gates_of, select_kernels, state_kernels
from sparse_rnn.scores import Criterion, Scores, criterion_named
from sparse_rnn.sparsity.allocation import Allocation
from sparse_rnn.sparsity.masks import Masks, emptied, keep_largest


def prune(
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
) -> Masks:
    """Removes the least important recurrent weights of a model: scores them on one batch and sets them to 0, in place.

    Call :meth:`Masks.apply_` after every optimizer step to keep them at 0.

    Args:
        module: The model.
        batch: What ``module.forward`` takes: one tensor, a tuple of positional or a dictionary of keyword arguments.
        sparsity: Share of the weights to remove, at least 0 and below 1.
        criterion: A criterion or its name (``"jacobian"``, ``"snip"``, ``"grasp"``, ``"synflow"``,
            ``"magnitude"``, ``"random"``).
        loss_fn: ``loss_fn(module, batch)`` runs the model and returns its loss, for criteria that need one.
        kernels: Shell-style patterns of the names of the weights to prune; None for all recurrent kernels.
        allocation: How the weights to keep are shared out: ``global``, ``per_kernel``, ``per_gate``, ``erk``, or a
            mapping such as ``{"*weight_hh*": {"n": 0.1}, "*weight_ih*": 0.2}`` of name patterns to the density of each
            kernel, or of its gates; see :func:`sparse_rnn.sparsity.masks.keep_largest`.
        keep_diagonal: Whether the diagonal of every gate of the recurrent kernels (``weight_hh``, ``weight_ch``) always
            stays, counted within the total.
        min_kept: Number of its best-scored weights that every kernel, gate and neuron (a unit's incoming weights in one
            kernel, over all gates) keeps, within the total; 0 warns where nothing is left of one.
        rescale: ``True`` multiplies what stays of every gate of every kernel so that its second moment is what it was,
            ``"chi"`` what stays of the recurrent kernels of a layer, by one factor, so that its χ is: the mean of
            (J·1)² over samples, units and the last four steps of the batch.
        rounds: How often to score, remove some weights and score the survivors again, on the way to the sparsity; None
            for what the criterion does by itself (100 for SynFlow, 1 for all others).
        seed: Seed of all random numbers of the scoring. PyTorch's own generators are left as they were.

    Returns:
        The masks, already applied.

    Raises:
        ValueError: If the model has no recurrent layer, a pattern matches nothing, a value is out of range, or
            what is asked for contradicts itself.
    """
    criterion = as_criterion(criterion)
    gates = gates_of(module, select_kernels(module, kernels))

    def measure() -> LayerChi:
        with seeded(seed):
            return layer_chi(module, batch, loss_fn)

    rescale_ = rescaling(module, gates, rescale, measure)
    with seeded(seed):
        masks = prune_in_rounds(
            module,
            lambda: score_batch(module, batch, criterion, loss_fn, kernels),
            lambda scores, progress: rank(module, scores, sparsity, allocation, keep_diagonal, min_kept, progress),
            criterion.rounds if rounds is None else rounds,
        )
    for message in filter(None, [*rescale_(masks), emptied(masks, gates)]):
        warnings.warn(message, stacklevel=2)
    return masks


def prune_in_rounds(
    module: nn.Module,
    score: Callable[[], Scores],
    choose: Callable[[Scores, float], Masks],
    rounds: int,
) -> Masks:
    """Scores, ranks and removes several times, the density falling exponentially to the wished one.

    After round k of K a share (1 - sparsity)^(k/K) of the weights is left (Tanaka et al. 2020; iterative SNIP, de Jorge
    et al. 2021). What was removed in one round is not scored in the next and never comes back.

    Args:
        module: The model.
        score: Scores the weights of the model as it is.
        choose: Ranks scores and chooses masks, given k / K.
        rounds: K, at least 1.

    Returns:
        The masks, already applied. If scoring fails in between, all weights are as they were.

    Raises:
        ValueError: If ``rounds`` is below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: give the number of times to score and prune, at least 1.")
    dense: dict[str, Tensor] = {}
    masks: Masks | None = None
    try:
        for k in range(1, rounds + 1):
            scores = score()
            if masks is not None:
                scores = {name: s.masked_fill(~masks[name], -torch.inf) for name, s in scores.items()}
            elif rounds > 1:
                dense = {name: module.get_parameter(name).detach().clone() for name in scores}
            masks = choose(scores, k / rounds)
            masks.apply_()
    except BaseException:
        with torch.no_grad():
            for name, weight in dense.items():
                module.get_parameter(name).copy_(weight)
        raise
    assert masks is not None
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


def rank(
    module: nn.Module,
    scores: Scores,
    sparsity: float,
    allocation: Allocation,
    keep_diagonal: bool,
    min_kept: int,
    progress: float,
) -> Masks:
    """The masks that keep the weights with the largest scores; nothing is applied yet."""
    diagonal = state_kernels(module) if keep_diagonal else ()
    gates = gates_of(module, scores)
    return Masks(keep_largest(scores, sparsity, gates, allocation, diagonal, min_kept, progress), module)


def as_criterion(criterion: Criterion | str) -> Criterion:
    """The criterion itself, or the one of that name."""
    return criterion_named(criterion) if isinstance(criterion, str) else criterion


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds PyTorch's generators inside, and gives them back their state on exit."""
    with rng_kept():
        torch.manual_seed(seed)
        yield
