"""Figures of the graph study, each with its caption and its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparse_rnn.analysis.panels import WIDTH
from sparse_rnn.analysis.plates import Plate, Row
from sparse_rnn.compare.plots import STYLES
from sparse_rnn.studies.graphs import FAMILIES
from sparse_rnn.studies.prediction import Correlation, Estimate, Explained
from sparse_rnn.studies.properties import SOURCES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plates(
    networks: Mapping[str, Sequence[Row]],
    reached: str,
    correlated: Mapping[str, Mapping[str, Correlation]],
    regressions: Mapping[str, Mapping[str, Explained]],
) -> dict[str, Plate]:
    """Prepare the figures.

    Args:
        networks: For each cell its networks, each with ``family``, what it reached and the properties of its graph.
        reached: What it is called that they reached.
        correlated: For each cell the correlation of each property with what was reached.
        regressions: For each cell the regressions.

    Returns:
        The figures by the stems of their files.
    """
    rows = [{"cell": cell, **row} for cell, found in networks.items() for row in found]
    made = {
        "distribution": Plate(
            f"{reached} by family",
            "A point a network; the line is the mean.",
            lambda: _panels(networks, reached, lambda axes, cell: _distribution(axes, networks[cell], reached)),
            [{name: row[name] for name in ("cell", "family", "number", reached)} for row in rows],
        ),
        "sources": Plate(
            f"{reached} against the number of sources",
            "The width of the first layer, and of the embedding: the property to which all others are compared.",
            lambda: _panels(networks, reached, lambda axes, cell: _sources(axes, networks[cell], reached)),
            [{name: row[name] for name in ("cell", "family", "number", SOURCES, reached)} for row in rows],
        ),
        "correlations": Plate(
            f"Correlation of the properties with {reached}",
            "Pearson's, and what is left of it among graphs with the same number of sources; lines are 95 % intervals.",
            lambda: _panels(networks, "", lambda axes, cell: _correlations(axes, correlated[cell]), height=5.5),
            [
                {"cell": cell, "property": name, **_spread("Pearson", c.pearson), **_spread("Spearman", c.spearman),
                 **_spread("beyond sources", c.beyond)}
                for cell, found in correlated.items() for name, c in found.items()
            ],
        ),
    }  # fmt: skip
    if any(regressions.values()):
        made["regressions"] = Plate(
            "What regressions explain",
            "R² on graphs that were not fitted to, by all 23 properties and by the number of sources alone; lines are "
            "95 % intervals.",
            lambda: _panels(networks, "R²", lambda axes, cell: _explained(axes, regressions[cell])),
            [
                {"cell": cell, "regression": name, **_spread("all", e.every), **_spread("sources", e.base),
                 **_spread("gain", e.gain)}
                for cell, found in regressions.items() for name, e in found.items()
            ],
        )  # fmt: skip
    return made


def _spread(name: str, estimate: Estimate) -> Row:
    return {name: estimate.value, f"{name} low": estimate.low, f"{name} high": estimate.high}


def _panels(cells: Mapping[str, object], y: str, draw: Callable[[Axes, str], None], height: float = 3.2) -> Figure:
    from matplotlib.figure import Figure  # slow to import, and needed only here

    columns = min(len(cells), 2)
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, cell in zip(panels.flat, cells, strict=False):
        draw(axes, cell)
        axes.set_title(cell)
    for axes in panels.flat[len(cells) :]:
        axes.remove()
    figure.supylabel(y)
    entries = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=4)
    return figure


def _families(networks: Sequence[Row]) -> Iterator[tuple[str, list[Row], dict[str, Any]]]:
    """Give each family that there is, its networks and its look, which is the same in every panel."""
    for at, (family, (marker, _)) in enumerate(zip(FAMILIES, STYLES, strict=False)):
        if rows := [row for row in networks if row["family"] == family]:
            look = {"color": f"C{at}", "marker": marker, "markersize": 3, "linestyle": "none", "label": family}
            yield family, rows, look


def _distribution(axes: Axes, networks: Sequence[Row], reached: str) -> None:
    families = list(_families(networks))
    for at, (_, rows, look) in enumerate(families):
        values = [row[reached] for row in rows]
        places = at + np.linspace(-0.3, 0.3, len(values)) if len(values) > 1 else [at]
        axes.plot(places, sorted(values), **look)
        axes.hlines(np.mean(values), at - 0.35, at + 0.35, color="black", linewidth=1)
    axes.set_xticks(range(len(families)), [family for family, _, _ in families])


def _sources(axes: Axes, networks: Sequence[Row], reached: str) -> None:
    for _, rows, look in _families(networks):
        axes.plot([row[SOURCES] for row in rows], [row[reached] for row in rows], **look)
    axes.set_xlabel(SOURCES)


def _correlations(axes: Axes, found: Mapping[str, Correlation]) -> None:
    estimates = {
        "Pearson": [c.pearson for c in found.values()],
        "beyond sources": [c.beyond for c in found.values()],
    }
    for shift, (name, values) in zip((-0.15, 0.15), estimates.items(), strict=True):
        _with_lines(axes, np.arange(len(found)) + shift, values, name, horizontal=True)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(-1, 1)


def _explained(axes: Axes, found: Mapping[str, Explained]) -> None:
    estimates = {"all properties": [e.every for e in found.values()], "sources alone": [e.base for e in found.values()]}
    for shift, (name, values) in zip((-0.1, 0.1), estimates.items(), strict=True):
        _with_lines(axes, np.arange(len(found)) + shift, values, name, horizontal=False)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(found)), list(found))


def _with_lines(axes: Axes, places: np.ndarray, values: Sequence[Estimate], name: str, horizontal: bool) -> None:
    centre = np.array([v.value for v in values])
    ends = np.abs(np.array([[v.low for v in values], [v.high for v in values]]) - centre)
    style: dict[str, Any] = {
        "fmt": "o" if "all" in name or name == "Pearson" else "s",
        "markersize": 4,
        "capsize": 2,
        "label": name,
    }
    if horizontal:
        axes.errorbar(centre, places, xerr=ends, **style)
    else:
        axes.errorbar(places, centre, yerr=ends, **style)
