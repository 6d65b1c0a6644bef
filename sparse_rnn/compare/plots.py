"""Figures of a comparison: the error against the budget, and against sparsity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from sparse_rnn.compare.axes import described, points
from sparse_rnn.compare.cells import last_values
from sparse_rnn.compare.grid import DENSE, Cell, Grid
from sparse_rnn.compare.results import Result, by_seed, metric, with_unit
from sparse_rnn.compare.statistics import mean_and_sd
from sparse_rnn.compare.table import sections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = [("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", (0, (5, 1))), ("P", (0, (1, 1)))]
_SIZE = 3.2  # inches, of a panel


def against_epochs(results: Sequence[Result], grid: Grid) -> Figure:
    """Draw the mean over seeds of each method's validations: a panel a column of the tables, a row a table."""
    laid_out = sections(grid)
    figure, panels = subplots(len(laid_out), len(laid_out[0].columns), "epochs", _labelled(results))
    _say_what(figure, "mean", grid)
    for row, section in zip(panels, laid_out, strict=True):
        for axes, (heading, sparsity, point) in zip(row, section.columns, strict=True):
            axes.set_title(", ".join(filter(None, [f"{section.axis} {heading}", section.title])), fontsize="small")
            for name, style in _styled(grid):
                epochs, values = _mean_curve(results, grid.cell(name, sparsity, point))
                axes.plot(epochs, values, label=name, **style)
    return with_legend(figure, panels)


def against_sparsity(results: Sequence[Result], grid: Grid) -> Figure:
    """Draw mean and standard deviation of each method's last values: a panel for each combination of varied values."""
    columns = len(grid.vary[0].values) if grid.vary else 1
    combinations = points(grid.vary[::-1])  # the first axis makes the columns, as in the tables
    figure, panels = subplots(len(combinations) // columns, columns, "sparsity", _labelled(results))
    _say_what(figure, "mean ± standard deviation of the last validation", grid)
    for axes, turned in zip(panels.flat, combinations, strict=True):
        point = turned[::-1]
        axes.set_title(described(point), fontsize="small")
        for name, style in _styled(grid):
            spread = [_spread(results, grid.cell(name, sparsity, point)) for sparsity in sorted(grid.sparsities)]
            means, sds = np.transpose(spread)
            axes.errorbar(sorted(grid.sparsities), means, yerr=np.nan_to_num(sds), capsize=3, label=name, **style)
        axes.set_xticks(sorted(grid.sparsities))
    return with_legend(figure, panels)


def subplots(rows: int, columns: int, x: str, y: str) -> tuple[Figure, np.ndarray]:
    """Make a figure of panels with common labels of the axes."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    figure = Figure(figsize=(_SIZE * columns + 2.5, _SIZE * rows), layout="constrained")
    figure.supxlabel(x)
    figure.supylabel(y)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row")


def with_legend(figure: Figure, panels: np.ndarray) -> Figure:
    """Add the legend of the first panel to the whole figure."""
    first: Axes = panels[0, 0]
    figure.legend(*first.get_legend_handles_labels(), loc="outside right upper")
    return figure


def _labelled(results: Sequence[Result]) -> str:
    """Name the metric, its unit, and which way is better."""
    return f"{with_unit(metric(results))}, less is better"


def _say_what(figure: Figure, said: str, grid: Grid) -> None:
    seeds = "seed 0" if grid.seeds == 1 else f"seeds 0 to {grid.seeds - 1}"
    figure.suptitle(f"{grid.output.name}: {said}, {seeds}", fontsize="medium")


def _styled(grid: Grid) -> Iterator[tuple[str, dict]]:
    yield DENSE, {"color": "black", "linewidth": 1}
    for method, (marker, line) in zip(grid.methods, cycle(STYLES)):
        yield method.name, {"marker": marker, "linestyle": line, "markersize": 4}


def _mean_curve(results: Sequence[Result], cell: Cell) -> tuple[list[float], list[float]]:
    curves = [result.curve(metric(results)) for result in by_seed(results, cell).values()]
    shortest = min((len(epochs) for epochs, _ in curves), default=0)
    epochs = curves[0][0][:shortest] if curves else []
    return epochs, [mean_and_sd([values[at] for _, values in curves])[0] for at in range(shortest)]


def _spread(results: Sequence[Result], cell: Cell) -> tuple[float, float]:
    return mean_and_sd(list(last_values(results, cell).values()))
