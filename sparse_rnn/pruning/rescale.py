"""Rescaling: the weights that stay make up, once, for those that are gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import copysign, log2
from typing import Any, Literal

import torch
from torch import Tensor

from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import leave_no_trace
from sparse_rnn.recurrent.capture import LossFn, run_unrolled
from sparse_rnn.recurrent.jacobian import chi
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.sparsity.masks import Masks

Rescale = bool | Literal["chi"]
LayerChi = dict[tuple[str, ...], Tensor]

LARGEST_FACTOR = 16  # a 95 % sparse kernel needs about 4.5
TOLERANCE = 1e-3
BISECTIONS = 30
GRID = 0.25  # powers of 2: J·1 is linear in the factor but for the gates, so χ is much like a parabola


def check_rescale(rescale: Rescale) -> None:
    """Refuse anything but False, True and ``"chi"`` with a UsageError."""
    if rescale not in (False, True, "chi"):
        raise UsageError(f"rescale={rescale!r}: choose one of False, True (each gate's second moment), 'chi'.")


def rescaling(kernels: Targets, rescale: Rescale, measure: Callable[[], LayerChi]) -> Callable[[Masks], list[str]]:
    """Note, before pruning, what rescaling is to give back.

    Args:
        kernels: The kernels to prune.
        rescale: ``True``: each gate of each kernel by the factor that gives back its sum of squares. ``"chi"``: the
            recurrent kernels of a layer by one factor that gives back its χ. ``False``: not at all.
        measure: Runs the model and gives χ of every layer; see :func:`layer_chi`.

    Returns:
        A function that rescales, once, in place, what the masks, applied already, have left; it returns a sentence for
        every layer whose χ no factor gives back: its weights are as they were.

    Raises:
        UsageError: If ``rescale`` is unknown, or ``"chi"`` has no kernel to scale.
    """
    check_rescale(rescale)
    if rescale == "chi":
        before = measure()
        if not any(name in kernels for names in before for name in names):
            raise UsageError(
                "rescale='chi' scales the kernels that read the state, and none is pruned: give True, or leave it out."
            )
        return partial(_restore_chi_, measure, before)
    if rescale:
        return partial(_restore_second_moments_, _second_moments(kernels))
    return lambda masks: []


def layer_chi(kernels: Targets, batch: Any, loss_fn: LossFn | None = None) -> LayerChi:
    """Measure χ of every layer on one batch, by the names of its recurrent kernels; the mean over a layer's calls."""
    found: dict[tuple[str, ...], list[Tensor]] = {}
    with leave_no_trace(kernels.model):
        for unrolled in run_unrolled(kernels.model, kernels.recurrent, batch, loss_fn):
            found.setdefault(unrolled.layer.state_kernels, []).append(chi(unrolled))
    return {names: torch.stack(values).mean() for names, values in found.items()}


@torch.no_grad()
def _second_moments(kernels: Targets) -> dict[str, Tensor]:
    """Sum the squares of every gate, in double precision."""
    by_gate = {name: kernel.by_gate(kernel.parameter) for name, kernel in kernels.items()}
    return {name: gates.double().square().sum((1, 2), keepdim=True) for name, gates in by_gate.items()}


@torch.no_grad()
def _restore_second_moments_(before: dict[str, Tensor], masks: Masks) -> list[str]:
    for name, after in _second_moments(masks.kernels).items():
        kernel = masks.kernels[name]
        factor = torch.where(after > 0, (before[name] / after).sqrt(), 1.0)  # nothing to rescale in an emptied gate
        weight = kernel.parameter
        weight.copy_((kernel.by_gate(weight) * factor.to(weight)).view_as(weight))
    return []


@torch.no_grad()
def _restore_chi_(measure: Callable[[], LayerChi], targets: LayerChi, masks: Masks) -> list[str]:
    unreached = []
    # From the input upwards: what a layer receives depends on those below it.
    for kernels, target in targets.items():
        weights = [masks.kernels[name].parameter for name in kernels if name in masks]
        if weights and not _scale_(weights, kernels, measure, float(target)):
            unreached.append(
                f"rescale='chi': χ of {', '.join(kernels)} was {target:.4g} and is {measure()[kernels]:.4g} now; no "
                f"factor from 1/{LARGEST_FACTOR} to {LARGEST_FACTOR} was found that brings it back, so none is applied."
            )
    return unreached


def _scale_(
    weights: Sequence[Tensor], kernels: tuple[str, ...], measure: Callable[[], LayerChi], target: float
) -> bool:
    """Scale the weights of a layer in place until its χ reaches the target; False, and as they were, if it cannot."""
    start = [weight.clone() for weight in weights]

    def excess(exponent: float) -> float:
        for weight, value in zip(weights, start, strict=True):
            weight.copy_(value * 2**exponent)
        return float(measure()[kernels]) - target

    if _found_root(excess, TOLERANCE * target):
        return True
    excess(0)
    return False


def _found_root(excess: Callable[[float], float], tolerance: float) -> bool:
    """Bisect between the two points of a grid nearest to 0 where a function changes sign; the last call is the root.

    The function may be anything between them (units of a ReLU network switch on and off), so the root is not unique.
    """
    at_0 = excess(0)
    if abs(at_0) <= tolerance:
        return True
    grid = [GRID * step for step in range(1, round(log2(LARGEST_FACTOR) / GRID) + 1)]
    for outer in (sign * exponent for exponent in grid for sign in (1, -1)):
        if (excess(outer) > 0) != (at_0 > 0):
            return _bisected(excess, at_0 > 0, outer - copysign(GRID, outer), outer, tolerance)
    return False


def _bisected(excess: Callable[[float], float], positive: bool, inner: float, outer: float, tolerance: float) -> bool:
    """Tell whether a root is found between two points, ``positive`` being the sign at the inner one."""
    for _ in range(BISECTIONS):
        middle = (inner + outer) / 2
        value = excess(middle)
        if abs(value) <= tolerance:
            return True
        inner, outer = (middle, outer) if (value > 0) == positive else (inner, middle)
    return False
