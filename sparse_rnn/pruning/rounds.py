"""One-shot pruning as such: scores to masks, in one round or several. Who scores, and on what, is up to the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sparse_rnn.checks import MOST_TIMES, check_flag, check_seed, check_whole
from sparse_rnn.isolation import seeded
from sparse_rnn.pruning.rescale import LayerChi, Rescale, rescaling
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Selection
from sparse_rnn.sparsity.shuffle import shuffled
from sparse_rnn.sparsity.statistics import emptied, undecided

Scorer = Callable[[], Mapping[str, Tensor]]


def prune_targets(
    kernels: Targets,
    selection: Selection,
    score: Scorer,
    chi: Callable[[], LayerChi],
    rounds: int = 1,
    rescale: Rescale = False,
    seed: int = 0,
    shuffle: bool = False,
) -> tuple[Masks, list[str]]:
    """Remove weights of a model, in place: what :func:`sparse_rnn.prune` and the callbacks have in common.

    Args:
        kernels: The kernels to prune.
        selection: Which weights stay, given their scores.
        score: Scores the weights of the model as it is.
        chi: Measures χ of every layer of the model as it is, for ``rescale="chi"``.
        rounds: See :func:`prune_in_rounds`.
        rescale: See :func:`sparse_rnn.pruning.rescale.rescaling`.
        seed: Seed of all random numbers of ``score``, ``chi`` and ``shuffle``. PyTorch's generators are left as they
            were.
        shuffle: Whether to keep random weights in the end, in each gate of each kernel as many as were chosen.

    Returns:
        The masks, already applied, and one sentence for everything that the user should be warned of.

    Raises:
        UsageError: If a value is out of range, or what is asked for contradicts itself.

    Example:
        >>> from sparse_rnn.recurrent import find_targets
        >>> targets = find_targets(torch.nn.GRU(3, 4))
        >>> score = lambda: {name: kernel.parameter.detach().abs() for name, kernel in targets.items()}
        >>> masks, notes = prune_targets(targets, Selection(0.5), score, chi=dict)
        >>> masks
        Masks(2 kernels, 42 of 84 weights kept, sparsity 0.5000)
    """
    check_seed(seed)

    def measure() -> LayerChi:
        with seeded(seed):
            return chi()

    check_flag("shuffle", shuffle)
    rescale_ = rescaling(kernels, rescale, measure)
    scored: list[Mapping[str, Tensor]] = []

    def noted() -> Mapping[str, Tensor]:
        scored[:] = [score()]
        return scored[0]

    dense = _weights(kernels) if shuffle else {}
    with seeded(seed):
        chosen = masks = prune_in_rounds(kernels, selection, noted, rounds)
    if shuffle:
        fixed = selection.diagonals(kernels, {name: kernels[name].by_gate(mask) for name, mask in chosen.items()})
        masks = shuffled(kernels, chosen, fixed, seed)
        _put_back(kernels, dense)
        masks.apply_()
    kernels.mask_copies_(masks)
    return masks, list(filter(None, [*rescale_(masks), emptied(masks), undecided(chosen, scored[0])]))


def prune_in_rounds(kernels: Targets, selection: Selection, score: Scorer, rounds: int) -> Masks:
    """Score, rank and remove several times, the density falling exponentially to the wished one.

    After round k of K a share (1 - sparsity)^(k/K) of the weights is left (Tanaka et al. 2020; iterative SNIP, de Jorge
    et al. 2021). What was removed in one round is not scored in the next and never comes back.

    Args:
        kernels: The kernels to prune.
        selection: Which weights stay, given their scores.
        score: Scores the weights of the model as it is.
        rounds: K, at least 1.

    Returns:
        The masks, already applied. If scoring fails in between, all weights are as they were.

    Raises:
        UsageError: If ``rounds`` is below 1, or above 100,000.
    """
    check_whole("rounds", rounds, 1, MOST_TIMES, "the number of times to score and prune")
    dense = _weights(kernels) if rounds > 1 else {}
    masks: Masks | None = None
    try:
        for k in range(1, rounds + 1):
            masks = selection.best(kernels, score(), masks, k / rounds, geometric=True)
            masks.apply_()
    except BaseException:
        _put_back(kernels, dense)
        raise
    assert masks is not None
    return masks


def _weights(kernels: Targets) -> dict[str, Tensor]:
    return {name: kernel.parameter.detach().clone() for name, kernel in kernels.items()}


@torch.no_grad()
def _put_back(kernels: Targets, weights: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        kernels[name].parameter.copy_(weight)


def check_rounds(rounds: int | None) -> None:
    """Refuse a number of rounds below 1, or without end, with a UsageError; None leaves it to the criterion."""
    check_whole("rounds", rounds, 1, MOST_TIMES, "the number of times to score and prune", optional=True)
