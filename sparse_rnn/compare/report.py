"""The outcome of a comparison as tables, CSV, Markdown and figures."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from sparse_rnn.compare.axes import Point
from sparse_rnn.compare.cells import (
    MISSING,
    REFERENCE,
    best_cell,
    compared_rows,
    difference,
    last_cell,
    seconds_cell,
    to_reference,
)
from sparse_rnn.compare.grid import DENSE, Cell, Grid
from sparse_rnn.compare.notes import notes
from sparse_rnn.compare.plots import against_epochs, against_sparsity
from sparse_rnn.compare.results import SPARSITY, Result, metric, seeds_of, with_unit
from sparse_rnn.compare.table import Section, sections, table
from sparse_rnn.compare.tuning import choose
from sparse_rnn.writing import write_figure, written_whole

_OF_ALL = "The best of a run of an earlier version, which has noted no sparsity, is that of all its validations."


def describe(results: Sequence[Result], grid: Grid) -> str:
    """Show the tables, the notes and where everything lies."""
    files = "results.csv, results.md, the figures and the runs"
    return "\n\n".join([*_tables(results, grid), *_bullets(notes(results, grid)), f"{files}: {grid.output}"])


def save(results: Sequence[Result], grid: Grid, command: str) -> None:
    """Write results.csv (a line a finished run), results.md, epochs.png, and sparsity.png where there are several.

    Args:
        results: The finished runs.
        grid: What was to run.
        command: The command line that asked for it.
    """
    figures = {"epochs.png": against_epochs}
    if len(grid.sparsities) > 1:
        figures["sparsity.png"] = against_sparsity
    for name, draw in figures.items():
        write_figure(grid.output / name, draw(results, grid), dpi=150)
    _write_csv(results, grid.output / "results.csv")
    with written_whole(grid.output / "results.md") as unfinished:
        unfinished.write_text(_markdown(results, grid, command, list(figures)), encoding="utf-8")


def _tables(results: Sequence[Result], grid: Grid) -> list[str]:
    """Write what is compared: the last values, and their differences to random pruning."""
    name, chosen = metric(results), choose(grid, results)
    seconds = ("seconds", lambda row, cells: seconds_cell(results, cells)) if grid.jobs == 1 else None
    parts = []
    for section in sections(grid):
        parts.append(_title(f"{with_unit(name)} of the last validation, less is better", section))
        parts.append(table(grid, section, name, lambda cell: last_cell(results, grid, chosen, cell), last=seconds))
    return [*parts, *_differences(results, grid)]


def _differences(results: Sequence[Result], grid: Grid) -> list[str]:
    if not (compared := compared_rows(grid)):
        return []
    said = f"{with_unit(metric(results))} minus that of {REFERENCE}, seed by seed [95 % interval]"
    return _per_section(grid, said, lambda cell: _difference_cell(results, grid, cell), compared)


def _difference_cell(results: Sequence[Result], grid: Grid, cell: Cell) -> str:
    found = to_reference(results, cell)
    if found is None:
        return MISSING
    return difference(found, results, grid) + (" *" if found.excludes_zero else "")


def _per_section(grid: Grid, said: str, text: Callable[[Cell], str], rows: Sequence[str]) -> list[str]:
    return [
        part for section in sections(grid) for part in (_title(said, section), table(grid, section, "", text, rows))
    ]


def _title(said: str, section: Section) -> str:
    return f"{said}, by {section.axis}" + (f"; {section.title}" if section.title else "") + ":"


def _bullets(lines: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def _write_csv(results: Sequence[Result], path: Path) -> None:
    name = metric(results)
    metrics = list(dict.fromkeys(key for result in results for key in result.metrics))
    axes = list(dict.fromkeys(key for result in results for key, _ in _point(result)))
    with written_whole(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        head = ["method", "sparsity", *axes, "stage", "seed", "seconds", *metrics]
        writer.writerow([*head, "best", "best_epoch", "validated", "checkpoint"])
        for result in results:
            run, point = result.run, dict(_point(result))
            place = [run.cell.method, run.cell.sparsity, *(point.get(key, "") for key in axes), run.stage, run.seed]
            values = [result.metrics.get(key, "") for key in metrics]
            model = [*result.best(name), result.validated, result.checkpoint]
            writer.writerow([*place, round(result.seconds, 2), *values, *model])


def _point(result: Result) -> Point:
    return (*result.run.cell.varied, *result.run.tuned)


def _markdown(results: Sequence[Result], grid: Grid, command: str, figures: Sequence[str]) -> str:
    name = metric(results)
    facts = [
        f"What is compared is {name} of the last validation, mean ± standard deviation over "
        f"{seeds_of(results, grid)}. It is that of each run's last checkpoint where `validated` in results.csv is the "
        "last step, as it is after whole epochs.",
        *(["Seconds are those of a fit, scoring included."] if grid.jobs == 1 else []),
        *([_OF_ALL] if any(map(_lacks_sparsity, results)) else []),
        *dict.fromkeys(result.made_by for result in results),
    ]
    best = f"Best {with_unit(name)} of the validations at the final sparsity, and the epochs until then"
    parts = [
        f"# {grid.output.name}",
        *_tables(results, grid),
        *_bullets(notes(results, grid)),
        *_per_section(grid, best, lambda cell: best_cell(results, grid, cell), grid.rows),
        *(f"![{name}]({figure})" for figure in figures),
        f"```\n{command}\n```",
        *_bullets(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _lacks_sparsity(result: Result) -> bool:
    """Tell whether an earlier version has made a run of a pruned network."""
    return result.run.cell.method != DENSE and any(SPARSITY not in at for at in result.history)
