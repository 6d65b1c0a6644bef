"""γ, the normalisation of scores by how strongly a weight moves the hidden states (Zhang and Stadie 2020, eq. 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.capture import LossFn, run_unrolled
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.recurrent.unroll import Gradients, Unrolled
from sparse_rnn.scores.criterion import summed

Gamma = Literal["sequence", "author", "none"]

NOISE_SD = 0.1  # appendix 6.1: gamma is computed on inputs from N(0, 0.1)
AUTHOR_STEPS, AUTHOR_BATCH = 5, 100


def gamma_of(unrolled: Unrolled, gamma: Gamma) -> Gradients:
    """γ = E Σ_t Σ_i ∂h̃_i^{(t)}/∂θ for every kernel of a layer.

    Args:
        unrolled: The layer, unrolled over the samples.
        gamma: ``sequence``: eq. 7 over as many N(0, 0.1) sequences, of the same length, as there are samples, from the
            zero state; for one step of a longer sequence, of that one's length, and of two steps at least.
            ``author``: the author's code, ∂ Σ h_last/∂θ after 5 steps of 100 such sequences from a state 1 + N(0, 0.1).
            ``none``: 1.

    Returns:
        Role to γ, transposed.
    """
    if gamma == "none":
        return {role: total.add_(1) for role, total in unrolled.no_gradients().items()}
    if gamma == "author":
        reference = _run_on_noise(unrolled, AUTHOR_STEPS, AUTHOR_BATCH, around=1.0)
        ones = reference.x_TBI.new_ones(())
        total = reference.no_gradients()
        reference.backpropagate(lambda t: (ones,) if t == AUTHOR_STEPS - 1 else None, [total], AUTHOR_STEPS)
        return total
    steps, batch = unrolled.reference_steps, unrolled.x_TBI.shape[1]
    reference = _run_on_noise(unrolled, steps, batch)
    share = reference.x_TBI.new_tensor(1 / batch)
    total = reference.no_gradients()
    reference.backpropagate(lambda t: (share,), [total], steps)
    return total


class Gammas:
    """γ of one layer after the other; all that are one step of the same longer sequence share it.

    Args:
        gamma: See :func:`gamma_of`.
    """

    def __init__(self, gamma: Gamma) -> None:
        self._gamma = gamma
        self._shared: dict[tuple[int, int, int], Gradients] = {}

    def of(self, unrolled: Unrolled) -> Gradients:
        """Return γ of every kernel of a layer, by its role; see :func:`gamma_of`."""
        if unrolled.reference_steps == len(unrolled.x_TBI):
            return gamma_of(unrolled, self._gamma)
        key = (id(unrolled.layer), unrolled.reference_steps, unrolled.x_TBI.shape[1])
        if key not in self._shared:
            self._shared[key] = gamma_of(unrolled, self._gamma)
        return self._shared[key]


def normalised_(score: Tensor, gamma: Tensor) -> Tensor:
    """Score / |γ|, in place; 0 where γ is exactly 0: no reference input moves the hidden state through that weight."""
    return score.div_(gamma.abs()).masked_fill_(gamma == 0, 0)


def normalise(
    scores: Mapping[str, Tensor], gamma: Gamma, kernels: Targets, batch: Any, loss_fn: LossFn | None
) -> dict[str, Tensor]:
    """Divide the scores of recurrent kernels by |γ|; where a layer is called several times, by that of the sum.

    Raises:
        UsageError: If one of the weights is no recurrent kernel, and γ is asked for.
    """
    if gamma == "none":
        return dict(scores)
    others = [name for name in scores if kernels[name].layer is None]
    if others:
        raise UsageError(
            f"gamma={gamma!r} exists for recurrent kernels only, and {', '.join(sorted(others))} is none: leave it "
            "out, or take gamma='none'."
        )
    gammas = Gammas(gamma)
    total = summed(
        (unrolled.layer.kernels[role], value.t())
        for unrolled in run_unrolled(kernels.model, kernels.recurrent, batch, loss_fn)
        for role, value in gammas.of(unrolled).items()
    )
    return {name: normalised_(score, total[name]) for name, score in scores.items()}


def _run_on_noise(unrolled: Unrolled, steps: int, batch: int, around: float | None = None) -> Unrolled:
    """Run a layer on N(0, 0.1) inputs, from the zero state or from ``around`` + N(0, 0.1)."""
    layer, like = unrolled.layer, unrolled.x_TBI
    x_TBI = (torch.randn(steps, batch, like.shape[-1]) * NOISE_SD).to(like)
    if around is None:
        return Unrolled(layer, x_TBI)
    initial = [around + torch.randn(batch, size) * NOISE_SD for size in layer.state_sizes]
    return Unrolled(layer, x_TBI, tuple(state.to(like) for state in initial))
