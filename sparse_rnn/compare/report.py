"""The outcome of a comparison as a table, CSV, Markdown and a figure."""

import csv
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

from sparse_rnn.compare.grid import DENSE, Grid
from sparse_rnn.compare.runner import COMPARED, Result

_STYLES = [("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", (0, (5, 1))), ("P", (0, (1, 1)))]


def describe(results: Sequence[Result], grid: Grid) -> str:
    """Show the table and where everything lies."""
    return f"{table(results, grid)}\n\nresults.csv, results.md, results.png and the runs: {grid.output}"


def save(results: Sequence[Result], grid: Grid, command: str) -> None:
    """Write results.csv (a line a finished run, with the step of its metrics), results.md and results.png.

    Args:
        results: The finished runs.
        grid: What was to run.
        command: The command line that asked for it.
    """
    _write_csv(results, grid.output / "results.csv")
    _draw(results, grid, grid.output / "results.png")
    (grid.output / "results.md").write_text(_markdown(results, grid, command))


def metric(results: Sequence[Result]) -> str:
    """Choose what to compare by: ``val/error`` where every run logs it, else ``val/ppl``, else ``val/loss``."""
    *better, last = COMPARED
    return next((name for name in better if all(name in result.metrics for result in results)), last)


def table(results: Sequence[Result], grid: Grid) -> str:
    """Tell mean ± standard deviation over the seeds in a Markdown table whose columns line up.

    Args:
        results: The finished runs.
        grid: What was to run; the count of seeds stands with each cell that lacks some.

    Returns:
        A row a method and a column a sparsity; the dense network, at no sparsity, stands in every column. The last
        column is the wall time of a fit, the mean over all of a row.
    """
    header = [metric(results), *(str(sparsity) for sparsity in grid.sparsities), "seconds"]
    dense = [DENSE, *[_cell(results, DENSE, 0.0, grid.seeds)] * len(grid.sparsities), _seconds(results, DENSE)]
    body = [
        [
            method.name,
            *(_cell(results, method.name, sparsity, grid.seeds) for sparsity in grid.sparsities),
            _seconds(results, method.name),
        ]
        for method in grid.methods
    ]
    widths = [max(map(len, column)) for column in zip(header, dense, *body, strict=True)]
    rows = [header, ["-" * width for width in widths], dense, *body]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows
    )


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Compute mean and sample standard deviation, nan where there are too few values."""
    if not values:
        return np.nan, np.nan
    with np.errstate(invalid="ignore"):  # a diverged run logs inf
        return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else np.nan


def _values(results: Sequence[Result], method: str, sparsity: float) -> list[float]:
    name = metric(results)
    cell = (method, sparsity)
    return [result.metrics[name] for result in results if (result.run.method, result.run.sparsity) == cell]


def _seconds(results: Sequence[Result], method: str) -> str:
    seconds = [result.seconds for result in results if result.run.method == method]
    return f"{np.mean(seconds):.0f}" if seconds else "failed"


def _cell(results: Sequence[Result], method: str, sparsity: float, seeds: int) -> str:
    values = _values(results, method, sparsity)
    if not values:
        return "failed"
    mean, sd = mean_and_sd(values)
    decimals = COMPARED[metric(results)]
    text = f"{mean:.{decimals}f}" + (f" ± {sd:.{decimals}f}" if len(values) > 1 else "")
    return text if len(values) == seeds else f"{text} ({len(values)} of {seeds} seeds)"


def _write_csv(results: Sequence[Result], path: Path) -> None:
    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "sparsity", "seed", "seconds", *names, "validated", "checkpoint"])
        for result in results:
            run = result.run
            values = [result.metrics.get(name, "") for name in names]
            model = [result.validated, result.checkpoint]
            writer.writerow([run.method, run.sparsity, run.seed, round(result.seconds, 2), *values, *model])


def _markdown(results: Sequence[Result], grid: Grid, command: str) -> str:
    made_by = dict.fromkeys(f"- {result.made_by}" for result in results)
    seeds = "seed 0" if grid.seeds == 1 else f"seeds 0 to {grid.seeds - 1}"
    facts = [
        f"- {metric(results)} of the last validation, mean ± standard deviation over {seeds}; it is that of each run's "
        "last checkpoint where `validated` in results.csv is the last step, as it is after whole epochs",
        f"- seconds of a fit, {grid.jobs} at a time, scoring included",
        *made_by,
    ]
    parts = [
        f"# {grid.output.name}",
        table(results, grid),
        "![Against sparsity](results.png)",
        f"```\n{command}\n```",
        "\n".join(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _draw(results: Sequence[Result], grid: Grid, path: Path) -> None:
    from matplotlib.figure import Figure  # slow to import, and needed only here

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    sparsities = sorted(grid.sparsities)
    dense, _ = mean_and_sd(_values(results, DENSE, 0.0))
    axes.axhline(dense, color="black", linewidth=1, label=DENSE)
    for method, (marker, line) in zip(grid.methods, cycle(_STYLES)):
        means, sds = np.transpose([mean_and_sd(_values(results, method.name, s)) for s in sparsities])
        axes.errorbar(sparsities, means, yerr=np.nan_to_num(sds), marker=marker, linestyle=line, capsize=3,
                      label=method.name)  # fmt: skip
    axes.set_xticks(sparsities)
    axes.set_xlabel("sparsity")
    axes.set_ylabel(metric(results))
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=150)
