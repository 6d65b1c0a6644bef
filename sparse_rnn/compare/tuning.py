"""The values that every cell of a table is best with, chosen by runs that are not reported."""

import math
from collections.abc import Sequence

from sparse_rnn.compare.axes import Point
from sparse_rnn.compare.grid import Cell, Grid
from sparse_rnn.compare.results import Result, loss_of, metric


def choose(grid: Grid, results: Sequence[Result]) -> dict[Cell, Point]:
    """Choose the values with the smallest error on the data held out, for each cell that all values were tried in.

    Args:
        grid: The comparison.
        results: Its finished runs.

    Returns:
        Cell to the values; of equally good ones the first. A cell that diverged with all of them has none.
    """
    best = _best(grid, results)
    return {cell: result.run.tuned for cell, (result, loss) in best.items() if math.isfinite(loss)}


def diverged(grid: Grid, results: Sequence[Result]) -> list[Cell]:
    """List the cells in which no value that was tried ended with a finite error."""
    return [cell for cell, (_, loss) in _best(grid, results).items() if not math.isfinite(loss)]


def _best(grid: Grid, results: Sequence[Result]) -> dict[Cell, tuple[Result, float]]:
    """Return the best run of each cell that all values were tried in, and its error."""
    tried = {result.run: result for result in results if result.run.stage == "tune"}
    name = metric(list(tried.values()))
    runs_of: dict[Cell, list[Result | None]] = {}
    for run in grid.tuning_runs():
        runs_of.setdefault(run.cell, []).append(tried.get(run))
    whole = {cell: [result for result in found if result] for cell, found in runs_of.items() if all(found)}
    losses = {cell: [(result, loss_of(result, name)) for result in found] for cell, found in whole.items()}
    return {cell: min(found, key=lambda pair: pair[1]) for cell, found in losses.items()}


def at_edge(grid: Grid, tuned: Point) -> list[str]:
    """List the arguments whose chosen value is the smallest or the largest that was tried."""
    axes = {axis.key: axis for axis in grid.tune}
    return [key for key, value in tuned if axes[key].at_edge(value)]
