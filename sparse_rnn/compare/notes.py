"""What a comparison says in sentences: what its tables cannot hold."""

import math
from collections import Counter
from collections.abc import Sequence

from sparse_rnn.compare.axes import described, label
from sparse_rnn.compare.cells import REFERENCE, compared_rows, difference, last_values, to_reference
from sparse_rnn.compare.grid import TUNING_SEED, Cell, Grid
from sparse_rnn.compare.methods import Method
from sparse_rnn.compare.results import Result, by_seed, metric, progress
from sparse_rnn.compare.statistics import Difference, half_width, paired_difference
from sparse_rnn.compare.tuning import at_edge, choose, diverged

TOLERATED, ROUNDING = 0.05, 0.002
"""By what share the weights that are left may be more or fewer than was asked for before a sentence says so, and by
what share of all weights of a small network, where that is more."""


def notes(results: Sequence[Result], grid: Grid) -> list[str]:
    """List the sentences.

    Args:
        results: The finished runs.
        grid: What was to run.
    """
    told = (_missing, _other_sparsities, _marks, _tuning, _controls)
    return [note for tell in told for note in tell(results, grid)]


def _missing(results: Sequence[Result], grid: Grid) -> list[str]:
    finished, total = progress(results, grid)
    return [] if finished == total else [f"{finished} of {total} runs to report are finished."]


def _other_sparsities(results: Sequence[Result], grid: Grid) -> list[str]:
    """Name the cells whose networks are not as sparse in the end as was asked for."""
    said = []
    for cell in grid.cells():
        reached = [r.sparsity for r in by_seed(results, cell).values() if r.sparsity is not None]
        others = sorted(sparsity for sparsity in reached if not _is_near(sparsity, cell.sparsity))
        if others:
            ends = " to ".join(dict.fromkeys(f"{sparsity:.3f}" for sparsity in (others[0], others[-1])))
            said.append(
                f"{_name(cell)}: {len(others)} of {len(reached)} runs were validated last at a sparsity of {ends}, as "
                "happens where a training ends before its schedule, or tiles are large: what they reached is not "
                "comparable."
            )
    return said


def _is_near(reached: float, asked: float) -> bool:
    return abs(reached - asked) <= max(TOLERATED * (1 - asked), ROUNDING)


def _marks(results: Sequence[Result], grid: Grid) -> list[str]:
    compared = [to_reference(results, cell) for row in compared_rows(grid) for cell in grid.cells_of(row)]
    if not compared:
        return []
    found = [one for one in compared if one is not None]
    said = [f"A star marks what differs from {REFERENCE}: the 95 % interval of the paired differences excludes 0."]
    if any(one.excludes_zero for one in found):
        said.append(
            "Each star is of one comparison alone, not corrected for how many there are: of 20 comparisons where "
            "nothing differs, one has a star by chance, on average."
        )
    if any(one.is_without_spread for one in found):
        said.append(
            "No spread: the difference is the same at every seed, as happens where few samples are validated. "
            "That says nothing of other seeds, so there is no interval and no star."
        )
    return [*said, *_few(sorted({one.pairs for one in found}), grid.seeds)]


def _few(pairs: Sequence[int], seeds: int) -> list[str]:
    """Say of how many pairs the differences are, where they are not of all seeds, and what few are worth."""
    said = []
    if pairs and pairs != [seeds]:
        counts = " to ".join(map(str, dict.fromkeys([pairs[0], pairs[-1]])))
        said.append(
            f"n, the number of pairs that a difference is of, is {counts} here where {seeds} seeds were asked for: the "
            "other runs are not finished."
        )
    more = "give --seeds 3 or more" if seeds < 3 else "let the other seeds finish"
    if 1 in pairs:
        said.append(f"One pair has no interval, so that its difference cannot be told from chance: {more}.")
    if 2 in pairs:
        said.append(
            f"An interval of two pairs is next to nothing: it reaches {half_width(2):.0f} standard deviations of the "
            f"differences to either side, that of three {half_width(3):.1f}, of five {half_width(5):.1f}. A star there "
            f"is by the same rule, and rests on two numbers: {more}."
        )
    return said


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
    lost = ", ".join(map(str, diverged(grid, results)))
    return [
        said,
        *([f"With none of these values did {lost} end with a finite error, so that none was chosen."] if lost else []),
        *(
            f"In {count} of {len(chosen)} cells the best {key} lies at the edge of its values (!): try some beyond it."
            for key, count in edges.items()
        ),
    ]


def _controls(results: Sequence[Result], grid: Grid) -> list[str]:
    controls = [method for method in grid.methods if method.control_of]
    if not controls:
        return []
    said = [_verdict(cell, method, results, grid) for method in controls for cell in grid.cells_of(method.name)]
    reason = "it does not choose its masks once, at the start"
    others = [method.name for method in grid.methods if not method.one_shot]
    return [*said, *(f"{name} has no shuffled control: {reason}." for name in others)]


def _verdict(cell: Cell, control: Method, results: Sequence[Result], grid: Grid) -> str:
    criterion = Cell(str(control.control_of), cell.sparsity, cell.varied)
    found = paired_difference(last_values(results, cell), last_values(results, criterion))
    if found is None or (math.isnan(found.low) and not found.is_without_spread):
        return f"{_name(criterion)}: what shuffling its masks does is known after two seeds that did not diverge."
    change = f"shuffling its masks changes {metric(results)} by {difference(found, results, grid)}"
    return f"{_name(criterion)}: {change}, {_meaning(found)}."


def _meaning(found: Difference) -> str:
    """Say what a change of the error by shuffling tells of the criterion."""
    if found.is_without_spread:
        return "the same at every seed, which says nothing of other seeds"
    if found.low > 0:
        return "so which weights it chooses is worth something"
    if found.high < 0:
        return "so shuffling helped: which weights it chooses within a gate did harm"
    return "no rise beyond chance, so all that it is shown to choose is an allocation"


def _name(cell: Cell) -> str:
    return f"{cell.method} at sparsity {cell.sparsity}" + (f", {described(cell.varied)}" if cell.varied else "")
