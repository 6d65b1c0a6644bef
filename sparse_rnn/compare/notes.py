"""What a comparison says in sentences: what its tables cannot hold."""

import math
from collections import Counter
from collections.abc import Sequence

from sparse_rnn.compare.axes import described, label
from sparse_rnn.compare.cells import REFERENCE, compared_rows, last_values
from sparse_rnn.compare.grid import TUNING_SEED, Cell, Grid
from sparse_rnn.compare.methods import Method
from sparse_rnn.compare.results import Result, decimals_of, metric
from sparse_rnn.compare.statistics import Difference, half_width, paired_difference
from sparse_rnn.compare.tuning import at_edge, choose


def notes(results: Sequence[Result], grid: Grid) -> list[str]:
    """List the sentences.

    Args:
        results: The finished runs.
        grid: What was to run.
    """
    return [*_missing(results, grid), *_marks(grid), *_tuning(results, grid), *_controls(results, grid)]


def _missing(results: Sequence[Result], grid: Grid) -> list[str]:
    total, finished = grid.seeds * len(grid.cells()), sum(result.run.stage == "final" for result in results)
    return [] if finished == total else [f"{finished} of {total} runs to report are finished."]


def _marks(grid: Grid) -> list[str]:
    if not compared_rows(grid):
        return []
    said = [f"A star marks what differs from {REFERENCE}: the 95 % interval of the paired differences excludes 0."]
    if grid.seeds > 2:
        return said
    few = (
        "One seed has no interval, so that no difference here can be told from chance"
        if grid.seeds == 1
        else f"An interval of two seeds is next to nothing: it reaches {half_width(2):.0f} standard deviations of "
        f"the differences to either side, that of three {half_width(3):.1f}, of five {half_width(5):.1f}"
    )
    return [*said, f"{few}: give --seeds 3 or more."]


def _tuning(results: Sequence[Result], grid: Grid) -> list[str]:
    if not grid.tune:
        return []
    tried = " and ".join(f"{axis.key} of {', '.join(map(label, axis.values))}" for axis in grid.tune)
    said = (
        f"Every cell has its own best {tried} (after @), by one run each of seed {TUNING_SEED} with "
        f"{' '.join(grid.tune_with)}; no such run is reported."
    )
    chosen = choose(grid, results)
    edges = Counter(key for tuned in chosen.values() for key in at_edge(grid, tuned))
    return [
        said,
        *(
            f"In {count} of {len(chosen)} cells the best {key} lies at the edge of its values (!): try some beyond it."
            for key, count in edges.items()
        ),
    ]


def _controls(results: Sequence[Result], grid: Grid) -> list[str]:
    controls = [method for method in grid.methods if method.control_of]
    if not controls:
        return []
    said = [_verdict(cell, method, results) for method in controls for cell in grid.cells_of(method.name)]
    reason = "it does not choose its masks once, at the start"
    others = [method.name for method in grid.methods if not method.one_shot]
    return [*said, *(f"{name} has no shuffled control: {reason}." for name in others)]


def _verdict(cell: Cell, control: Method, results: Sequence[Result]) -> str:
    criterion = Cell(str(control.control_of), cell.sparsity, cell.varied)
    found = paired_difference(last_values(results, cell), last_values(results, criterion))
    if found is None or math.isnan(found.low):
        return f"{_name(criterion)}: what shuffling its masks does is known after two seeds that did not diverge."
    change = f"shuffling its masks changes {metric(results)} by {interval(found, decimals_of(metric(results)))}"
    if found.low > 0:
        return f"{_name(criterion)}: {change}, so which weights it chooses is worth something."
    return f"{_name(criterion)}: {change}, no rise beyond chance, so all that it is shown to choose is an allocation."


def interval(difference: Difference, decimals: int) -> str:
    """Write a mean difference with its interval, where that is known."""
    text = f"{difference.mean:+.{decimals}f}"
    if math.isnan(difference.low):
        return text
    return f"{text} [{difference.low:+.{decimals}f}, {difference.high:+.{decimals}f}]"


def _name(cell: Cell) -> str:
    return f"{cell.method} at sparsity {cell.sparsity}" + (f", {described(cell.varied)}" if cell.varied else "")
