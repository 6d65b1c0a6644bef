"""Parses the command lines of a comparison's fits before the first of them starts."""

from contextlib import redirect_stdout
from io import StringIO

from sparse_rnn.cli.fit import PruningCLI
from sparse_rnn.compare.axes import covering
from sparse_rnn.compare.grid import Grid, Run, taken_by
from sparse_rnn.errors import UsageError, one_line


def check_fits(grid: Grid) -> None:
    """Refuse what a fit would refuse, without running any: each row is parsed with every value of every axis.

    Raises:
        UsageError: If an argument cannot be used; the message says by which fit.
    """
    for run in _covering_runs(grid):
        check_fit(grid, run)


def check_fit(grid: Grid, run: Run) -> None:
    """Refuse what one fit would refuse, without running it, with a UsageError."""
    try:
        with redirect_stdout(StringIO()):
            PruningCLI([*grid.fit_arguments(run), "--print_config"])
    except SystemExit as end:
        if end.code:  # somebody has asked for the end; printing ends with 0
            raise
    except UsageError as error:
        hint = " (--tune_with says what tuning validates on)" if run.stage == "tune" else ""
        raise UsageError(f"{run} cannot run{hint}: {one_line(str(error))}") from error


def _covering_runs(grid: Grid) -> list[Run]:
    """List as few runs as show every value to every row, those that tune included."""
    runs = []
    for row in grid.rows:
        tuned = taken_by(row, grid.tune)
        for point in covering([*grid.vary, *tuned]):
            cell = grid.cell(row, grid.sparsities[0], point)
            chosen = tuple(pair for pair in point if pair[0] in {axis.key for axis in tuned})
            runs.append(Run(cell, 0, chosen, "tune" if chosen else "final"))
    return runs
