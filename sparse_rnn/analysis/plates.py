"""The figures of a report, each with its caption and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from sparse_rnn.analysis import figures
from sparse_rnn.analysis.curves import METRICS
from sparse_rnn.analysis.maps import ConnectionMap
from sparse_rnn.analysis.numbers import Numbers
from sparse_rnn.analysis.origins import scoring_samples
from sparse_rnn.analysis.panels import both_widths, legend_above, wrapped
from sparse_rnn.recurrent.spectrum import NEAR_ZERO

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "sparse_rnn",  # the same numbers give the same file
}


@dataclass(frozen=True)
class Plate:
    """One figure of a report.

    Attributes:
        title: Heading.
        caption: What is to be seen.
        draw: Draws it.
        rows: The numbers behind it, as lines of a CSV.
        draw_narrow: Draws it for a phone, one panel below the other; None where it has no such form.
    """

    title: str
    caption: str
    draw: Callable[[], Figure]
    rows: Sequence[Row]
    draw_narrow: Callable[[], Figure] | None = None


def plates(numbers: Sequence[Numbers]) -> dict[str, Plate]:
    """Prepare the figures that these numbers allow, by the stems of their files: spectra need data, curves logs."""
    return {name: plate for name, make in _PLATES.items() if (plate := make(numbers)) is not None}


def summary(numbers: Sequence[Numbers]) -> list[Row]:
    """Put the checkpoints side by side: a line for each of them and each layer."""
    return [row for found in numbers for row in _summary(found)]


def _summary(found: Numbers) -> Iterator[Row]:
    trained = found.trained
    metrics = {name: curve.until(trained.step) for name, curve in found.curves.items()}
    for layer, left in found.connections.items():
        row: Row = {"checkpoint": trained.name, "layer": layer, "epoch": trained.epoch, "step": trained.step}
        row |= {"sparsity": left.sparsity, "connections": left.inputs + left.recurrent}
        row |= {"I/R": left.ratio, "dense I/R": left.dense_ratio}
        row |= {"units without incoming": left.no_incoming, "units without outgoing": left.no_outgoing}
        if layer in found.spectra.steps:
            spectrum = found.spectra.steps[layer]
            row |= {"χ": spectrum.chi, "mean σ": spectrum.mean, "largest σ": spectrum.largest}
            row |= {f"share of σ below {NEAR_ZERO:g}": spectrum.near_zero}
        row |= {"scoring samples": scoring_samples(trained), "validation samples": found.validation_samples}
        yield {name: value for name, value in row.items() if value is not None} | metrics


def _gate_shares(numbers: Sequence[Numbers]) -> Plate | None:
    pruned = _pruned(numbers)

    def draw(layer: str, axes: Axes) -> None:
        figures.gate_shares({n.trained.name: n.connections[layer] for n in pruned}, axes, _looks(numbers))
        legend_above(axes, layer)

    rows = [
        {"checkpoint": n.trained.name, "layer": layer, "kernel": gate.kernel, "gate": gate.gate, "kept": gate.kept,
         "total": gate.total, "share": left.shares[gate.kernel, gate.gate], "I/R": left.ratio,
         "dense I/R": left.dense_ratio}
        for n in pruned for layer, left in n.connections.items() for gate in left.gates
    ]  # fmt: skip
    return Plate(
        "Remaining connections by gate and type",
        "Each gate's share of a layer's remaining connections, beside its share before pruning (horizontal lines); I/R "
        "is the number of input connections to one recurrent connection. Figure 1 of the paper.",
        rows=rows,
        **both_widths(list(pruned[0].connections), draw, 3.2),
    )


def _singular_values(numbers: Sequence[Numbers]) -> Plate | None:
    measured = [n for n in numbers if n.spectra.steps]
    if not measured:
        return None
    series: dict[str, list[Numbers]] = {}
    for n in sorted(measured, key=lambda n: n.trained.step):
        series.setdefault(n.trained.series, []).append(n)
    order = list(dict.fromkeys(n.trained.series for n in measured))
    layers = list(measured[0].spectra.steps)
    largest = {layer: max(n.spectra.steps[layer].largest for n in measured) for layer in layers}
    look = _looks(numbers)

    columns = -(-len(order) // -(-len(order) // 3))  # at most 3, and as few as make no more rows
    gap = [None] * (-len(order) % columns)  # every layer begins a row
    places = [place for layer in layers for place in [*((layer, run) for run in order), *gap]]

    def draw(place: tuple[str, str], axes: Axes) -> None:
        layer, run = place
        spectra = {n.trained.name: n.spectra.steps[layer] for n in series[run]}
        figures.singular_values(spectra, axes, look[series[run][-1].trained.name], largest[layer])
        legend_above(axes, layer if len(layers) > 1 else None)

    rows = [
        {"checkpoint": n.trained.name, "layer": layer, "from": low, "to": high, "share (%)": share}
        for n in measured
        for layer, spectrum in n.spectra.steps.items()
        for share, low, high in _bins(*figures.histogram(spectrum, largest[layer]))
    ]
    samples = len(measured[0].spectra.steps[layers[0]].singular_values)
    return Plate(
        "Singular values of the temporal Jacobian",
        f"Of the last step, of {samples} samples of the training data, an LSTM's cell held fixed. Filled: as trained; "
        "outlines: checkpoints of the same run before it; vertical lines: means. Near zero is below "
        f"{NEAR_ZERO:g}. Figure 2 of the paper.",
        rows=rows,
        **both_widths(places, draw, 2.9, columns=columns, sharey=True),
    )


def _bins(shares: np.ndarray, edges: np.ndarray) -> Iterator[tuple[float, float, float]]:
    return zip(shares.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def _maps(numbers: Sequence[Numbers]) -> Plate | None:
    pruned = _pruned(numbers)
    densest = {layer: max(float(n.maps[layer].left.max()) for n in pruned) for layer in pruned[0].maps}

    def draw(place: tuple[str, str], axes: Axes) -> None:
        layer, name = place
        [found] = [n.maps[layer] for n in pruned if n.trained.name == name]
        figures.connection_map(found, axes, densest[layer])
        axes.set_title(wrapped(f"{name}, {layer}", axes))

    places = [(layer, n.trained.name) for layer in densest for n in pruned]
    rows = [row for n in pruned for layer, found in n.maps.items() for row in _cells(n.trained.name, layer, found)]
    return Plate(
        "Map of the remaining connections",
        "What the kernels read (rows) against the units that they reach, gate by gate (columns): the more "
        "a cell stands out, the more of its connections remain; at its strongest they are "
        + ", ".join(f"{100 * share:.3g} %" for share in dict.fromkeys(densest.values()))
        + ". Figure 3 of the paper.",
        rows=rows,
        **both_widths(places, draw, 3.2),
    )


def _cells(name: str, layer: str, found: ConnectionMap) -> Iterator[Row]:
    """Give a line for each cell that has a connection left; inputs and units count from 0 in each kernel and gate."""
    height, width = found.cell
    for i, kernel in enumerate(found.kernels):
        for j, gate in enumerate(found.gates):
            top, left = found.row_edges[i], found.column_edges[j]
            block = found.left[top : found.row_edges[i + 1], left : found.column_edges[j + 1]]
            for row, column in zip(*block.nonzero(), strict=True):
                yield {"checkpoint": name, "layer": layer, "kernel": kernel, "gate": gate, "first input": row * height,
                       "first unit": column * width, "share left": float(block[row, column])}  # fmt: skip


def _curves(numbers: Sequence[Numbers]) -> Plate | None:
    metrics = [metric for metric in METRICS if any(metric in n.curves for n in numbers)]
    if not metrics:
        return None
    runs = _runs(numbers)
    look = {name: _looks(numbers)[n.trained.name] for name, n in runs.items()}

    def draw(metric: str, axes: Axes) -> None:
        curves = {name: n.curves[metric] for name, n in runs.items() if metric in n.curves}
        figures.training_curves(curves, metric, axes, look)

    rows = [
        {"run": name, "metric": metric, "step": step, "value": value}
        for name, n in runs.items()
        for metric, curve in n.curves.items()
        for step, value in zip(curve.steps, curve.values, strict=True)
    ]
    return Plate(
        "Training curves",
        "What the runs logged, on logarithmic scales; where it is more than a hundred points, as many means of "
        "neighbours. Figures 4 and 5 of the paper.",
        rows=rows,
        **both_widths(metrics, draw, 3, columns=2, one_legend=True),
    )


def _runs(numbers: Sequence[Numbers]) -> dict[str, Numbers]:
    """Give each run the name that its checkpoints share, and the last of them, whose look its curve has."""
    runs = {n.trained.folder: n for n in numbers}
    series = [n.trained.series for n in runs.values()]
    return {n.trained.series if series.count(n.trained.series) == 1 else n.trained.name: n for n in runs.values()}


def _products(numbers: Sequence[Numbers]) -> Plate | None:
    measured = [n for n in numbers if n.spectra.products]
    if not measured:
        return None
    layers = list(measured[0].spectra.products)

    def draw(place: tuple[str, Any], axes: Axes) -> None:
        layer, statistic = place
        products = {n.trained.name: n.spectra.products[layer] for n in measured}
        figures.product_spectra(products, statistic, axes, _looks(numbers))
        axes.set_title(layer)

    products_of = [values for n in measured for found in n.spectra.products.values() for values in found.values()]
    samples = max(map(len, products_of), default=0)
    rows = [
        {"checkpoint": n.trained.name, "layer": layer, "steps back": k, **figures.survival(values)}
        for n in measured
        for layer, by_steps in n.spectra.products.items()
        for k, values in by_steps.items()
    ]
    return Plate(
        "How far back information survives",
        "Singular values of the Jacobian of the last state (an LSTM's cell with it) with respect to the state k steps "
        f"before, over {samples} samples: their mean, and the largest of each sample. Above 1 a change grows, "
        "below it fades.",
        rows=rows,
        **both_widths(list(product(layers, ("mean", "largest"))), draw, 3, columns=2, one_legend=True),
    )


def _degrees(numbers: Sequence[Numbers]) -> Plate | None:
    pruned = _pruned(numbers)

    def draw(place: tuple[str, Any], axes: Axes) -> None:
        layer, side = place
        figures.degrees({n.trained.name: n.connections[layer] for n in pruned}, side, axes, _looks(numbers))
        axes.set_title(layer)

    rows = [
        {"checkpoint": n.trained.name, "layer": layer, "side": side, "unit": unit, "connections": count}
        for n in pruned
        for layer, left in n.connections.items()
        for side, counts in (("incoming", left.incoming), ("outgoing", left.outgoing))
        for unit, count in enumerate(counts.tolist())
    ]
    return Plate(
        "Connections of the units",
        "The share of units that have at most so many connections left: into them, from the input and the state, over "
        "all gates; and out of them, to the layer itself a step later. A curve that does not begin at 0 has units "
        "without any.",
        rows=rows,
        **both_widths(
            list(product(pruned[0].connections, ("incoming", "outgoing"))),
            draw,
            3,
            columns=2,
            one_legend=True,
        ),
    )


def _pruned(numbers: Sequence[Numbers]) -> list[Numbers]:
    return [n for n in numbers if n.trained.pruned]


def _looks(numbers: Sequence[Numbers]) -> Mapping[str, figures.Look]:
    return figures.looks(n.trained.name for n in numbers)


_PLATES: dict[str, Callable[[Sequence[Numbers]], Plate | None]] = {
    "gate_shares": _gate_shares,
    "singular_values": _singular_values,
    "connection_map": _maps,
    "training_curves": _curves,
    "products": _products,
    "degrees": _degrees,
}
STEMS = tuple(_PLATES)
