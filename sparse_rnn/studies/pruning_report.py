"""The outcome of the pruning study as tables, CSV, Markdown and figures."""

import csv
from collections.abc import Callable, Sequence

from sparse_rnn.compare.axes import described, points
from sparse_rnn.compare.cells import MISSING, last_values
from sparse_rnn.compare.grid import DENSE, Cell
from sparse_rnn.compare.results import Result, decimals_of, metric
from sparse_rnn.compare.statistics import mean_and_sd
from sparse_rnn.compare.table import aligned
from sparse_rnn.studies.pruning import PruningStudy, after, epochs_to_recover
from sparse_rnn.studies.pruning_plots import against_sparsity, recovery, shown_epochs
from sparse_rnn.writing import write_figure, written_whole


def describe(results: Sequence[Result], study: PruningStudy) -> str:
    """Show the tables, and where everything lies."""
    files = "results.csv, results.md, the figures and the runs"
    return "\n\n".join([*_tables(results, study), *_missing(results, study), f"{files}: {study.output}"])


def save(results: Sequence[Result], study: PruningStudy, command: str) -> None:
    """Write results.csv (a line a finished run and validation), results.md, sparsity.png and recovery.png.

    Args:
        results: The finished runs.
        study: What was to run.
        command: The command line that asked for it.
    """
    figures = {"sparsity.png": against_sparsity, "recovery.png": recovery}
    for name, draw in figures.items():
        write_figure(study.output / name, draw(results, study), dpi=150)
    _write_csv(results, study)
    made_by = [f"- {said}" for said in dict.fromkeys(result.made_by for result in results)]
    parts = [
        f"# {study.output.name}: pruning after training",
        *_tables(results, study),
        *_missing(results, study),
        *(f"![{name}]({name})" for name in figures),
        f"```\n{command}\n```",
        "\n".join(made_by),
    ]
    with written_whole(study.output / "results.md") as unfinished:
        unfinished.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _tables(results: Sequence[Result], study: PruningStudy) -> list[str]:
    name = metric(results)
    epochs = " > ".join(said for said, _ in shown_epochs(study))
    parts = [f"{name}, mean over {_seeds(study)}, by sparsity: {epochs} of retraining"]
    for scope in study.scopes:
        parts += [f"{scope}:", _table(study, scope, lambda cell: _values(results, study, cell), "trained", results)]
    parts.append(
        "Epochs of retraining until a network is as good as the trained one, up to one point of error or one percent "
        "of perplexity or loss, by seed; none where it is not"
    )
    for scope in study.scopes:
        parts += [f"{scope}:", _table(study, scope, lambda cell: _recovery(results, study, cell))]
    return parts


def _table(
    study: PruningStudy,
    scope: str,
    text: Callable[[Cell], str],
    trained: str = "",
    results: Sequence[Result] = (),
) -> str:
    """Write a row a cell and a column a sparsity, behind the trained network where that is asked for."""
    body = []
    for point in points(study.vary):
        dense = [_mean(results, last_values(results, study.cell(DENSE, 0.0, point)))] if trained else []
        cells = [text(study.cell(scope, sparsity, point)) for sparsity in study.sparsities]
        body.append([described(point), *dense, *cells])
    header = ["", *([trained] if trained else []), *(f"{sparsity:.4g}" for sparsity in study.sparsities)]
    return aligned(header, body)


def _values(results: Sequence[Result], study: PruningStudy, cell: Cell) -> str:
    values = [after(results, cell, epoch) for _, epoch in shown_epochs(study)]
    return " > ".join(_mean(results, found) for found in values) if any(values) else MISSING


def _mean(results: Sequence[Result], values: dict[int, float]) -> str:
    return f"{mean_and_sd(list(values.values()))[0]:.{decimals_of(metric(results))}f}" if values else MISSING


def _recovery(results: Sequence[Result], study: PruningStudy, cell: Cell) -> str:
    found = epochs_to_recover(results, study, cell)
    return " ".join("none" if epoch is None else str(epoch) for epoch in found.values()) or MISSING


def _seeds(study: PruningStudy) -> str:
    return "1 seed" if study.seeds == 1 else f"{study.seeds} seeds"


def _missing(results: Sequence[Result], study: PruningStudy) -> list[str]:
    total = len(study.runs())
    return [] if len(results) == total else [f"{len(results)} of {total} runs are finished."]


def _write_csv(results: Sequence[Result], study: PruningStudy) -> None:
    axes = [axis.key for axis in study.vary]
    metrics = list(dict.fromkeys(key for result in results for at in result.history for key in at))
    with (
        written_whole(study.output / "results.csv") as unfinished,
        unfinished.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["scope", "sparsity", *axes, "seed", *metrics])
        for result in results:
            cell, point = result.run.cell, dict(result.run.cell.varied)
            place = [cell.method, cell.sparsity, *(point.get(key, "") for key in axes), result.run.seed]
            writer.writerows([*place, *(at.get(key, "") for key in metrics)] for at in result.history)
