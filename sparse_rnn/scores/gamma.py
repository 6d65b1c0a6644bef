"""γ, the normalisation of scores by how strongly a weight moves the hidden states (Zhang and Stadie 2020, eq. 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.capture import LossFn, run_unrolled
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.recurrent.layers import RecurrentLayer
from sparse_rnn.recurrent.unroll import Gradients, Unrolled
from sparse_rnn.scores.criterion import summed

Gamma = Literal["sequence", "author", "none"]
Noise = float | Literal["data"]

NOISE_SD = 0.1  # appendix 6.1: gamma is computed on inputs from N(0, 0.1)
AUTHOR_STEPS, AUTHOR_BATCH, AUTHOR_STATE_SD = 5, 100, 0.1


@dataclass(frozen=True)
class GammaOptions:
    """How γ is computed.

    Attributes:
        gamma: ``sequence``: eq. 7, E Σ_t Σ_i ∂h̃_i^{(t)}/∂θ over as many sequences of noise, of the same length, as
            there are samples, from the zero state; for one step of a longer sequence, of that one's length, and of two
            steps at least. ``author``: the author's code, ∂ Σ h_last/∂θ after 5 steps of 100 such sequences from a
            state 1 + N(0, 0.1). ``none``: 1.
        noise: Standard deviation of the noise; ``data`` for that of all inputs that the layer receives, or 0.1 where
            these are all the same.
        draws: Number of times that the noise is drawn.
    """

    gamma: Gamma
    noise: Noise = NOISE_SD
    draws: int = 1


class Gammas:
    """γ of one layer after the other; all that are one step of the same longer sequence share it.

    Args:
        options: How it is computed.
        calls: All layers as they ran.
    """

    def __init__(self, options: GammaOptions, calls: Sequence[Unrolled]) -> None:
        self._options = options
        self._calls = calls
        self._shared: dict[tuple[int, int, int], Gradients] = {}

    def of(self, unrolled: Unrolled) -> Gradients:
        """Return γ of every kernel of a layer, by its role, transposed; of several draws the mean |γ|.

        The noise has mean 0, and γ of an input weight to first order, too: averaged with its sign it would vanish, the
        more the more draws there are, and the input weights would be kept for that alone.
        """
        if unrolled.reference_steps == len(unrolled.x_TBI):
            return self._averaged(unrolled)
        key = (id(unrolled.layer), unrolled.reference_steps, unrolled.x_TBI.shape[1])
        if key not in self._shared:
            self._shared[key] = self._averaged(unrolled)
        return self._shared[key]

    def _averaged(self, unrolled: Unrolled) -> Gradients:
        options = self._options
        if options.gamma == "none":
            return {role: total.add_(1) for role, total in unrolled.no_gradients().items()}
        noise = self._spread(unrolled.layer) if options.noise == "data" else options.noise
        draw = _author_draw if options.gamma == "author" else _sequence_draw
        total = draw(unrolled, noise)
        if options.draws == 1:
            return total
        for gamma in total.values():
            gamma.abs_()
        for _ in range(options.draws - 1):
            for role, gamma in draw(unrolled, noise).items():
                total[role] += gamma.abs_()
        return {role: gamma.div_(options.draws) for role, gamma in total.items()}

    def _spread(self, layer: RecurrentLayer) -> float:
        received = [unrolled.received_NI.flatten() for unrolled in self._calls if unrolled.layer is layer]
        return torch.cat(received).std(correction=0).item() or NOISE_SD  # without noise every input weight had γ = 0


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
    calls = run_unrolled(kernels.model, kernels.recurrent, batch, loss_fn)
    gammas = Gammas(GammaOptions(gamma), calls)
    total = summed(
        (unrolled.layer.kernels[role], unrolled.layer.whole(role, value.t()))
        for unrolled in calls
        for role, value in gammas.of(unrolled).items()
    )
    return {name: normalised_(score, total[name]) for name, score in scores.items()}


def _sequence_draw(unrolled: Unrolled, noise: float) -> Gradients:
    steps, batch = unrolled.reference_steps, unrolled.x_TBI.shape[1]
    reference = _run_on_noise(unrolled, steps, batch, noise)
    share = reference.x_TBI.new_tensor(1 / batch)
    total = reference.no_gradients()
    reference.backpropagate(lambda t: (share,), [total], steps)
    return total


def _author_draw(unrolled: Unrolled, noise: float) -> Gradients:
    reference = _run_on_noise(unrolled, AUTHOR_STEPS, AUTHOR_BATCH, noise, around=1.0)
    ones = reference.x_TBI.new_ones(())
    total = reference.no_gradients()
    reference.backpropagate(lambda t: (ones,) if t == AUTHOR_STEPS - 1 else None, [total], AUTHOR_STEPS)
    return total


def _run_on_noise(unrolled: Unrolled, steps: int, batch: int, noise: float, around: float | None = None) -> Unrolled:
    """Run a layer on N(0, ``noise``) inputs, from the zero state or from ``around`` + N(0, 0.1)."""
    layer, like = unrolled.layer, unrolled.x_TBI
    x_TBI = (_normal(steps, batch, like.shape[-1]) * noise).to(like)
    if around is None:
        return Unrolled(layer, x_TBI)
    initial = [around + _normal(batch, size) * AUTHOR_STATE_SD for size in layer.state_sizes]
    return Unrolled(layer, x_TBI, tuple(state.to(like) for state in initial))


def _normal(*shape: int) -> Tensor:
    """Draw the same numbers whatever PyTorch's default device and type are."""
    return torch.randn(shape, device="cpu", dtype=torch.float32)
