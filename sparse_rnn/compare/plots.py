"""Figures of a comparison: the error against the budget, and against sparsity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from sparse_rnn.compare.axes import described, points
from sparse_rnn.compare.cells import last_values
from sparse_rnn.compare.grid import DENSE, Cell, Grid
from sparse_rnn.compare.results import Result, by_seed, metric, seeds_of, with_unit
from sparse_rnn.compare.statistics import mean_and_sd
from sparse_rnn.compare.table import sections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = [("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", (0, (5, 1))), ("P", (0, (1, 1)))]
_SIZE = 3.2  # inches, of a panel
_LINE = 0.06  # of a panel's height, a line of text
_SPAN = 5  # the largest value in terms of the smallest, from which on a scale is logarithmic


def against_epochs(results: Sequence[Result], grid: Grid) -> Figure:
    """Draw each method's validations, mean and range over seeds: a panel a column of the tables, a row a table.

    The names stand where the lines of the last panel of a row end.
    """
    from matplotlib.ticker import MaxNLocator  # slow to import, and needed only here

    laid_out = sections(grid)
    figure, panels = subplots(len(laid_out), len(laid_out[0].columns), "epochs", _labelled(results))
    _say_what(figure, "mean" if grid.seeds == 1 else "mean (line) and range (band)", results, grid)
    for row, section in zip(panels, laid_out, strict=True):
        for axes, (heading, sparsity, point) in zip(row, section.columns, strict=True):
            axes.set_title(", ".join(filter(None, [f"{section.axis} {heading}", section.title])), fontsize="small")
            for name, style in _styled(grid):
                epochs, values = _curves(results, grid.cell(name, sparsity, point))
                means = [mean_and_sd(list(at))[0] for at in values.T]
                [line] = axes.plot(epochs, means, label=name, **style)
                if len(values) > 1:
                    axes.fill_between(epochs, values.min(0), values.max(0), color=line.get_color(), alpha=0.15, lw=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        set_scale(row)
    names = [name for name, _ in _styled(grid)]
    if all(set(names) == set(name_ends(row[-1])) for row in panels):
        return figure
    return with_legend(figure, panels)


def against_sparsity(results: Sequence[Result], grid: Grid) -> Figure:
    """Draw mean and standard deviation of each method's last values: a panel for each combination of varied values."""
    columns = len(grid.vary[0].values) if grid.vary else 1
    combinations = points(grid.vary[::-1])  # the first axis makes the columns, as in the tables
    figure, panels = subplots(len(combinations) // columns, columns, "sparsity", _labelled(results))
    _say_what(figure, "mean ± standard deviation of the last validation", results, grid)
    for axes, turned in zip(panels.flat, combinations, strict=True):
        point = turned[::-1]
        axes.set_title(described(point), fontsize="small")
        for name, style in _styled(grid):
            spread = [_spread(results, grid.cell(name, sparsity, point)) for sparsity in sorted(grid.sparsities)]
            means, sds = np.transpose(spread)
            axes.errorbar(sorted(grid.sparsities), means, yerr=np.nan_to_num(sds), capsize=3, label=name, **style)
        axes.set_xticks(sorted(grid.sparsities))
    for row in panels:
        set_scale(row)
    return with_legend(figure, panels)


def subplots(rows: int, columns: int, x: str, y: str) -> tuple[Figure, np.ndarray]:
    """Make a figure of panels with common labels of the axes."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    figure = Figure(figsize=(_SIZE * columns + 2.5, _SIZE * rows), layout="constrained")
    figure.supxlabel(x)
    figure.supylabel(y)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row")


def set_scale(row: Sequence[Axes]) -> None:
    """Make the common y axis of some panels logarithmic where their lines span more than a factor of five."""
    values = np.concatenate([np.ravel(line.get_ydata()) for axes in row for line in axes.lines] or [np.ones(1)])
    values = values[np.isfinite(values)]
    if not values.size or values.min() <= 0 or values.max() <= _SPAN * values.min():
        return
    from matplotlib.ticker import LogLocator, NullFormatter

    for axes in row:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def name_ends(axes: Axes) -> list[str]:
    """Write the label of each line of a panel where it ends, in its colour, and return the labels.

    Labels that would overlap are moved apart, and a thin line leads to the end of each. Lines without an end have none.
    """
    axes.get_ylim()  # settles the limits, by which places are told
    ends = []
    for line in axes.lines:
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        if y.size and np.isfinite(y[-1]):
            across, up = axes.transAxes.inverted().transform(axes.transData.transform((x[-1], y[-1])))
            ends.append((float(up), float(across), line))
    ends.sort(key=lambda end: end[0])
    places = _apart([end[0] for end in ends])
    for place, (up, across, line) in zip(places, ends, strict=True):
        leader = {"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.5, "relpos": (0, 0.5)}
        axes.annotate(
            str(line.get_label()),
            (across, up),
            (1.06, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=line.get_color(),
            fontsize="small",
            verticalalignment="center",
            arrowprops=leader,
            annotation_clip=False,
        )
    return [str(line.get_label()) for _, _, line in ends]


def _apart(heights: Sequence[float]) -> list[float]:
    """Move rising heights apart, as little as lets them be a line of text away from each other."""
    blocks: list[list[float]] = []  # of labels that touch, by their wished heights
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _lowest(blocks[-1]) < _lowest(blocks[-2]) + _LINE * len(blocks[-2]):
            last = blocks.pop()
            blocks[-1] += last
    return [_lowest(block) + _LINE * at for block in blocks for at in range(len(block))]


def _lowest(block: Sequence[float]) -> float:
    return sum(block) / len(block) - _LINE * (len(block) - 1) / 2


def with_legend(figure: Figure, panels: np.ndarray) -> Figure:
    """Add the legend of the first panel to the whole figure."""
    first: Axes = panels[0, 0]
    figure.legend(*first.get_legend_handles_labels(), loc="outside right upper")
    return figure


def _labelled(results: Sequence[Result]) -> str:
    """Name the metric, its unit, and which way is better."""
    return f"{with_unit(metric(results))}, less is better"


def _say_what(figure: Figure, said: str, results: Sequence[Result], grid: Grid) -> None:
    figure.suptitle(f"{grid.output.name}: {said}, {seeds_of(results, grid)}", fontsize="medium")


def _styled(grid: Grid) -> Iterator[tuple[str, dict]]:
    if grid.dense:
        yield DENSE, {"color": "black", "linewidth": 1}
    for method, (marker, line) in zip(grid.methods, cycle(STYLES)):
        yield method.name, {"marker": marker, "linestyle": line, "markersize": 4}


def _curves(results: Sequence[Result], cell: Cell) -> tuple[list[float], np.ndarray]:
    """Give the epochs that all seeds have validated after, and their values [seeds, epochs]."""
    curves = [result.curve(metric(results)) for result in by_seed(results, cell).values()]
    shortest = min((len(epochs) for epochs, _ in curves), default=0)
    epochs = curves[0][0][:shortest] if curves else []
    return epochs, np.array([values[:shortest] for _, values in curves]).reshape(len(curves), shortest)


def _spread(results: Sequence[Result], cell: Cell) -> tuple[float, float]:
    return mean_and_sd(list(last_values(results, cell).values()))
