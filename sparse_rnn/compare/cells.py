"""What stands in one cell of a table."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sparse_rnn.compare.axes import Point, label
from sparse_rnn.compare.grid import DENSE, Cell, Grid
from sparse_rnn.compare.results import Result, by_seed, decimals_of, metric
from sparse_rnn.compare.statistics import Difference, mean_and_sd, paired_difference
from sparse_rnn.compare.tuning import at_edge

MISSING = "missing"
REFERENCE = "Random"


def last_values(results: Sequence[Result], cell: Cell) -> dict[int, float]:
    """Return the values of the last validation, by seed."""
    name = metric(results)
    return {seed: result.metrics[name] for seed, result in by_seed(results, cell).items()}


def best_values(results: Sequence[Result], cell: Cell) -> dict[int, tuple[float, float]]:
    """Return the best values at the final sparsity, and the epochs that they were reached after, by seed."""
    name = metric(results)
    return {seed: result.best(name) for seed, result in by_seed(results, cell).items()}


def compared_rows(grid: Grid) -> list[str]:
    """List the rows that are compared with random pruning; none where that is no row."""
    return [row for row in grid.rows if REFERENCE in grid.rows and row not in (DENSE, REFERENCE)]


def to_reference(results: Sequence[Result], cell: Cell) -> Difference | None:
    """Compare a cell with that of random pruning at the same place of the table, where there is one."""
    if cell.method in (DENSE, REFERENCE):
        return None
    reference = Cell(REFERENCE, cell.sparsity, cell.varied)
    return paired_difference(last_values(results, cell), last_values(results, reference))


def last_cell(results: Sequence[Result], grid: Grid, chosen: Mapping[Cell, Point], cell: Cell) -> str:
    """Write mean ± standard deviation of the last values, how many there are, and the tuned values behind them."""
    values = last_values(results, cell)
    if not values:
        return " ".join([MISSING, *_tuned(grid, chosen.get(cell, ()))])
    found = to_reference(results, cell)
    mark = ["*"] if found is not None and found.excludes_zero else []
    return " ".join([_spread(results, list(values.values()), grid.seeds), *mark, *_tuned(grid, chosen.get(cell, ()))])


def best_cell(results: Sequence[Result], grid: Grid, cell: Cell) -> str:
    """Write mean ± standard deviation of each run's best value at its final sparsity, how many, and its mean epoch."""
    found = [pair for pair in best_values(results, cell).values() if not math.isnan(pair[1])]
    if not found:
        return MISSING
    values, epochs = zip(*found, strict=True)
    return f"{_spread(results, values, grid.seeds)} after {np.mean(epochs):.3g}"


def difference(found: Difference, results: Sequence[Result], grid: Grid) -> str:
    """Write a mean difference with its interval, where that is known, and of how many pairs it is."""
    decimals = decimals_of(metric(results))
    interval = f"[{found.low:+.{decimals}f}, {found.high:+.{decimals}f}]"
    if math.isnan(found.low):
        interval = "[no spread]" if found.is_without_spread else ""
    return " ".join(filter(None, [f"{found.mean:+.{decimals}f}", interval, _count(found.pairs, grid.seeds)]))


def seconds_cell(results: Sequence[Result], cells: Sequence[Cell]) -> str:
    """Write the mean wall time of the runs of several cells."""
    seconds = [result.seconds for cell in cells for result in by_seed(results, cell).values()]
    return f"{np.mean(seconds):.0f}" if seconds else MISSING


def _spread(results: Sequence[Result], values: Sequence[float], seeds: int) -> str:
    mean, sd = mean_and_sd(values)
    decimals = decimals_of(metric(results))
    spread = f" ± {sd:.{decimals}f}" if len(values) > 1 else ""
    return f"{mean:.{decimals}f}{spread} {_count(len(values), seeds)}"


def _count(found: int, seeds: int) -> str:
    return f"(n={seeds})" if found == seeds else f"(n={found} of {seeds})"


def _tuned(grid: Grid, tuned: Point) -> list[str]:
    edges = at_edge(grid, tuned)
    return [f"@{label(value)}{'!' if key in edges else ''}" for key, value in tuned]
