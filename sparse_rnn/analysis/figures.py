"""The figures of Zhang and Stadie (2020), and a few more, one function each.

Every function takes numbers by the name of their run, draws them on the Axes that it is given, or on new ones, and
returns these. Colours are those of Okabe and Ito, which colour-blind eyes tell apart; hatches, markers and dashes do in
grey. matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from sparse_rnn.analysis.curves import Curve
from sparse_rnn.analysis.maps import ConnectionMap
from sparse_rnn.recurrent.spectrum import Spectrum
from sparse_rnn.sparsity.connections import Connections

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DENSE = "dense"
BINS = 40
_POINTS = 100  # of a curve; more are averaged, as a loss that is logged often is a band rather than a line


@dataclass(frozen=True)
class Look:
    """How a run is drawn, in every figure alike."""

    color: str
    hatch: str
    marker: str
    line: Any


_DENSE_LOOK = Look("#000000", "", "", "-")
_LOOKS = [
    Look("#0072B2", "", "o", "-"),
    Look("#E69F00", "///", "s", "--"),
    Look("#009E73", "...", "^", "-."),
    Look("#D55E00", "xxx", "D", ":"),
    Look("#56B4E9", "\\\\\\", "v", (0, (5, 1))),
    Look("#CC79A7", "ooo", "P", (0, (1, 1))),
    Look("#F0E442", "+++", "X", (0, (3, 1, 1, 1))),
]


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Choose a look for each run, by its place, of which 49 differ; the dense network is black."""
    pruned = (name for name in dict.fromkeys(names) if name != DENSE)
    return {DENSE: _DENSE_LOOK} | {name: _look(i) for i, name in enumerate(pruned)}


def _look(place: int) -> Look:
    """Choose the colours in turn, and after all of them join them to other hatches, markers and dashes."""
    turn, color = divmod(place, len(_LOOKS))
    return replace(_LOOKS[(color + turn) % len(_LOOKS)], color=_LOOKS[color].color)


def gate_shares(
    connections: Mapping[str, Connections], axes: Axes | None = None, look: Mapping[str, Look] | None = None
) -> Axes:
    """Draw figure 1: the share of a layer's remaining connections that each gate of each kernel has.

    Args:
        connections: Run to what is left of the layer (:func:`sparse_rnn.sparsity.connections.connections`).
        axes: Where to draw; new ones if not given.
        look: Run to look; by place if not given.
    """
    axes = axes or _new_axes((9, 4))
    look = look or looks(connections)
    gates = next(iter(connections.values())).gates
    places = np.arange(len(gates))
    width = 0.8 / len(connections)
    for i, (name, found) in enumerate(connections.items()):
        axes.bar(
            places + (i - (len(connections) - 1) / 2) * width,
            [100 * share for share in found.shares.values()],
            width,
            label=f"{name} (I/R {found.ratio:.2g})",
            facecolor=look[name].color,
            hatch=look[name].hatch,
            edgecolor="white",
            linewidth=0.5,
        )
    total = sum(gate.total for gate in gates)
    dense_ratio = next(iter(connections.values())).dense_ratio
    dense = [100 * gate.total / total for gate in gates]
    axes.hlines(dense, places - 0.45, places + 0.45, color="black", label=f"{DENSE} (I/R {dense_ratio:.2g})")
    axes.set_xticks(places, [gate.gate for gate in gates])
    _name_kernels(axes, [gate.kernel.rpartition(".")[2] for gate in gates])
    axes.set_ylabel("share of remaining connections (%)")
    axes.legend()
    return axes


def _name_kernels(axes: Axes, kernels: Sequence[str]) -> None:
    """Write each kernel's name once, below its gates."""
    names = list(dict.fromkeys(kernels))
    below = axes.secondary_xaxis("bottom")
    below.set_xticks([np.mean([i for i, k in enumerate(kernels) if k == name]) for name in names])
    below.set_xticklabels(names)
    below.tick_params(length=0, pad=18)
    for name in names[1:]:
        axes.axvline(kernels.index(name) - 0.5, color="0.6", linewidth=0.8)


def singular_values(
    spectra: Mapping[str, Spectrum],
    axes: Axes | None = None,
    look: Look | None = None,
    largest: float | None = None,
) -> Axes:
    """Draw figure 2: histograms of the singular values of a layer's temporal Jacobian.

    Args:
        spectra: Checkpoint to spectrum, in the order of training: the last one is filled, earlier ones are outlines.
        axes: Where to draw; new ones if not given.
        look: How to draw it.
        largest: Where the histogram ends; at the largest value if not given.
    """
    axes = axes or _new_axes((4, 3.5))
    look = look or _LOOKS[0]
    largest = largest or max(spectrum.largest for spectrum in spectra.values())
    *before, (last, after) = spectra.items()
    shares, edges = histogram(after, largest)
    axes.stairs(shares, edges, fill=True, facecolor=look.color, edgecolor="white", linewidth=0.3, alpha=0.8,
                label=_summary(last, after))  # fmt: skip
    axes.axvline(after.mean, color=look.color, linewidth=1.5)
    for (name, spectrum), dashes in zip(before, _dashes(len(before)), strict=True):
        axes.stairs(histogram(spectrum, largest)[0], edges, color="black", linewidth=1, linestyle=dashes,
                    label=_summary(name, spectrum))  # fmt: skip
        axes.axvline(spectrum.mean, color="black", linewidth=1, linestyle=dashes)
    axes.set_xlabel("singular value of ∂h(t)/∂h(t−1)")
    axes.set_ylabel("share of singular values (%)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3)
    return axes


def histogram(spectrum: Spectrum, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Count, in percent, the singular values in each of 40 bins from 0 to ``largest``; give the bins' edges too."""
    values = spectrum.singular_values.flatten().numpy()
    counts, edges = np.histogram(values, bins=BINS, range=(0, largest or 1))
    return 100 * counts / len(values), edges


def _summary(name: str, spectrum: Spectrum) -> str:
    return f"{name}\nmean {spectrum.mean:.2g}, near zero {100 * spectrum.near_zero:.1f} %"


def _dashes(count: int) -> list[Any]:
    return [(0, (4 + 2 * i, 2)) for i in range(count)]


def connection_map(found: ConnectionMap, axes: Axes | None = None, densest: float | None = None) -> Axes:
    """Draw figure 3: which connections of a layer remain, what they read against the units and gates that they reach.

    Args:
        found: The map (:func:`sparse_rnn.analysis.maps.connection_map`).
        axes: Where to draw; new ones if not given.
        densest: The share that is black; the largest one if not given.
    """
    axes = axes or _new_axes((10, 4))
    left, (height, width) = found.left, found.cell
    axes.imshow(
        left, cmap="Greys", vmin=0, vmax=densest or max(left.max(), 1e-9), aspect="auto", interpolation="nearest"
    )
    edges = found.column_edges
    axes.set_xticks([(a + b - 1) / 2 for a, b in pairwise(edges)], found.gates)
    axes.vlines([edge - 0.5 for edge in edges[1:-1]], -0.5, len(left) - 0.5, color="#D55E00", linewidth=1)
    edges = found.row_edges
    axes.set_yticks([(a + b - 1) / 2 for a, b in pairwise(edges)], found.kernels)
    axes.hlines([edge - 0.5 for edge in edges[1:-1]], -0.5, left.shape[1] - 0.5, color="#D55E00", linewidth=1)
    axes.tick_params(length=0)
    cell = "" if (height, width) == (1, 1) else f"; a cell is {height} × {width} of them"
    axes.set_xlabel(f"output unit, by gate ({found.units} each{cell})")
    axes.set_ylabel("input unit, by kernel")
    return axes


def training_curves(
    curves: Mapping[str, Curve],
    metric: str,
    axes: Axes | None = None,
    look: Mapping[str, Look] | None = None,
) -> Axes:
    """Draw figures 4 and 5: a metric over the course of training, on a logarithmic scale.

    Args:
        curves: Run to its curve; of more than 100 points, as many means of neighbours are drawn.
        metric: What the metric is called.
        axes: Where to draw; new ones if not given.
        look: Run to look; by place if not given.
    """
    axes = axes or _new_axes((5, 3.5))
    look = look or looks(curves)
    for name, curve in curves.items():
        stretches = max(1, min(_POINTS, len(curve.steps)))
        steps = [part.mean() for part in np.array_split(np.asarray(curve.steps), stretches)]
        values = [part.mean() for part in np.array_split(np.asarray(curve.values), stretches)]
        _draw_line(axes, steps, values, name, look[name])
    _plain_log_scale(axes)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(f"{metric} (%)" if metric.endswith("error") else metric)
    axes.legend()
    return axes


def product_spectra(
    products: Mapping[str, Mapping[int, Tensor]],
    statistic: Literal["mean", "largest"] = "mean",
    axes: Axes | None = None,
    look: Mapping[str, Look] | None = None,
) -> Axes:
    """Draw how far back information survives: the singular values of products of a layer's Jacobians over k steps.

    Args:
        products: Run to k to singular values, [samples, N]
            (:func:`sparse_rnn.recurrent.spectrum.product_singular_values`).
        statistic: ``mean`` of all, or the mean over samples of the ``largest``.
        axes: Where to draw; new ones if not given.
        look: Run to look; by place if not given.
    """
    axes = axes or _new_axes((5, 3.5))
    look = look or looks(products)
    for name, by_steps in products.items():
        values = [survival(by_steps[k])[statistic] for k in sorted(by_steps)]
        _draw_line(axes, sorted(by_steps), values, name, look[name])
    axes.axhline(1, color="0.6", linewidth=0.8)
    _plain_log_scale(axes)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("steps back, k")
    axes.set_ylabel(f"{statistic} singular value of J(T) ⋯ J(T−k+1)")
    axes.legend()
    return axes


def survival(values: Tensor) -> dict[str, float]:
    """Compute the mean singular value, and the mean over samples of the largest."""
    return {"mean": values.mean().item(), "largest": values.amax(-1).mean().item()}


def degrees(
    connections: Mapping[str, Connections],
    side: Literal["incoming", "outgoing"] = "incoming",
    axes: Axes | None = None,
    look: Mapping[str, Look] | None = None,
) -> Axes:
    """Draw the share of a layer's units that have at most so many connections left.

    Args:
        connections: Run to what is left of the layer.
        side: ``incoming``, from the input and from units, over all gates; or ``outgoing``, to units a step later.
        axes: Where to draw; new ones if not given.
        look: Run to look; by place if not given.
    """
    axes = axes or _new_axes((5, 3.5))
    look = look or looks(connections)
    for name, found in connections.items():
        counts = np.sort((found.incoming if side == "incoming" else found.outgoing).numpy())
        shares = 100 * np.arange(1, len(counts) + 1) / len(counts)
        axes.step(
            [0, *counts], [100 * np.mean(counts == 0), *shares], where="post", label=name, color=look[name].color,
            linestyle=look[name].line, marker=look[name].marker, markevery=0.15, markersize=5,
        )  # fmt: skip
    axes.set_ylim(0, 102)
    axes.set_xlabel(f"{side} connections of a unit")
    axes.set_ylabel("units with at most so many (%)")
    axes.legend()
    return axes


def _plain_log_scale(axes: Axes) -> None:
    """Make the y axis logarithmic, over what is drawn, with its numbers written out: 0.1, 0.2, 0.5, 1."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_line(axes: Axes, x: Sequence[float], y: Sequence[float], name: str, look: Look) -> None:
    axes.plot(
        x, y, label=name, color=look.color, linestyle=look.line, marker=look.marker, markersize=5,
        markevery=max(1, len(x) // 10),
    )  # fmt: skip


def _new_axes(size: tuple[float, float]) -> Axes:
    from matplotlib import pyplot

    return pyplot.subplots(figsize=size, layout="constrained")[1]
