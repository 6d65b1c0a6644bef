"""The outcome of the graph study as tables, CSV, Markdown, figures and a page."""

import html
import math
from collections.abc import Mapping, Sequence

from sparse_rnn.analysis.plates import STYLE, Row
from sparse_rnn.analysis.report import PAGE, page, write_csv, write_plate
from sparse_rnn.compare.axes import described, points
from sparse_rnn.compare.results import Result, metric
from sparse_rnn.compare.statistics import mean_and_sd
from sparse_rnn.compare.table import aligned
from sparse_rnn.studies.graph_plots import plates
from sparse_rnn.studies.graphs import FAMILIES, GraphStudy
from sparse_rnn.studies.prediction import Correlation, Estimate, Explained, correlations, explained
from sparse_rnn.studies.properties import SOURCES, properties
from sparse_rnn.writing import written_whole

_STRONGEST = 8


class Findings:
    """What a study's finished networks tell.

    Args:
        results: The finished fits.
        study: What was to run.

    Attributes:
        reached: What the networks are compared by: ``accuracy``, 0 to 1, where they log ``val/error``.
        networks: For each cell its networks, each with its ``family``, its ``number``, the ``seconds`` of its fit, what
            it reached, and the properties of its graph.
        correlations: For each cell the correlation of each property with what was reached.
        regressions: For each cell what each regression explains.
    """

    def __init__(self, results: Sequence[Result], study: GraphStudy) -> None:
        name = metric(results)
        self.reached = "accuracy" if name == "val/error" else name
        of_graph: dict[tuple[str, int], dict[str, float]] = {}
        self.networks: dict[str, list[Row]] = {described(point) or "all": [] for point in points(study.vary)}
        for result in results:
            run = result.run
            graph = run.cell.method, run.seed
            if graph not in of_graph:
                of_graph[graph] = properties(study.graph(run))
            value = 1 - result.metrics[name] / 100 if name == "val/error" else result.metrics[name]
            row = {"family": run.cell.method, "number": run.seed, "seconds": result.seconds, self.reached: value}
            self.networks[described(run.cell.varied) or "all"].append({**row, **of_graph[graph]})
        self.networks = {cell: rows for cell, rows in self.networks.items() if rows}
        self.correlations: dict[str, Mapping[str, Correlation]] = {}
        self.regressions: dict[str, Mapping[str, Explained]] = {}
        for cell, rows in self.networks.items():
            # A network that has diverged predicts nothing, and nothing predicts it.
            finite = [row for row in rows if math.isfinite(row[self.reached])]
            names = list(next(iter(of_graph.values())))
            features = {name: [row[name] for row in finite] for name in names}
            values = [row[self.reached] for row in finite]
            self.correlations[cell] = correlations(features, values, SOURCES) if finite else {}
            self.regressions[cell] = explained(features, values, SOURCES)


def describe(findings: Findings, study: GraphStudy) -> str:
    """Show the tables, and where everything lies."""
    files = f"results.csv, results.md, {PAGE}, the figures and the runs"
    return "\n\n".join([*_tables(findings), *_missing(findings, study), f"{files}: {study.output}"])


def save(findings: Findings, results: Sequence[Result], study: GraphStudy, command: str) -> None:
    """Write results.csv (a line a network), results.md, report.html, and the figures with their numbers.

    Args:
        findings: What the networks tell.
        results: The finished fits.
        study: What was to run.
        command: The command line that asked for it.
    """
    from matplotlib import rc_context  # slow to import, and needed only here

    write_csv(study.output / "results.csv", [{"cell": cell, **row} for cell, rows in findings.networks.items()
                                             for row in rows])  # fmt: skip
    drawn = plates(findings.networks, findings.reached, findings.correlations, findings.regressions)
    with rc_context(STYLE):
        sections = [write_plate(study.output, stem, plate) for stem, plate in drawn.items()]
    title = f"{study.output.name}: networks with the structure of random graphs"
    tables = [*_tables(findings), *_missing(findings, study)]
    made_by = dict.fromkeys(result.made_by for result in results)
    text = [f"# {title}", *tables, *(f"![{plate.title}]({stem}.png)" for stem, plate in drawn.items())]
    text += [f"```\n{command}\n```", "\n".join(f"- {said}" for said in made_by)]
    with written_whole(study.output / "results.md") as unfinished:
        unfinished.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    parts = [f"<h1>{html.escape(title)}</h1>", f"<pre>{html.escape(command)}</pre>", *map(_in_html, tables), *sections]
    parts += [f"<p>{html.escape(said)}</p>" for said in made_by]
    with written_whole(study.output / PAGE) as unfinished:
        unfinished.write_text(page(title, parts), encoding="utf-8")


def _in_html(text: str) -> str:
    tag = "pre" if text.startswith("|") else "p"
    return f"<{tag}>{html.escape(text)}</{tag}>"


def _tables(findings: Findings) -> list[str]:
    header = ["", *(f"{family} ({_counts(findings, family)})" for family in FAMILIES)]
    body = [[cell, *(_spread(findings, rows, family) for family in FAMILIES)] for cell, rows in
            findings.networks.items()]  # fmt: skip
    parts = [f"{findings.reached} of the last validation, mean ± standard deviation (smallest to largest)"]
    parts.append(aligned(header, body))
    regressions = [
        [cell, name, str(found.every), str(found.base), str(found.gain), str(Estimate(found.importance[SOURCES]))]
        for cell, of_cell in findings.regressions.items()
        for name, found in of_cell.items()
    ]
    if regressions:
        parts.append(
            "R² on graphs that were not fitted to, by ten times five-fold cross-validation, with 95 % intervals: all "
            "23 properties, the number of sources alone (by a random forest, which follows any curve), how much more "
            "all of them explain, and how much of what a regression of all of them goes by is the number of sources"
        )
        header = ["", "regression", "all", "sources alone", "gain", "importance of sources"]
        parts.append(aligned(header, regressions))
    parts.append(
        f"The {_STRONGEST} properties with the strongest correlation with {findings.reached}, with 95 % intervals; "
        "beyond sources: among graphs with the same number of sources"
    )
    parts.append(aligned(["", "property", "Pearson", "Spearman", "beyond sources"], list(_strongest(findings))))
    return parts


def _strongest(findings: Findings) -> list[list[str]]:
    lines: list[list[str]] = []
    for cell, found in findings.correlations.items():
        known = [name for name, of_property in found.items() if not math.isnan(of_property.pearson.value)]
        known.sort(key=lambda name: -abs(found[name].pearson.value))
        for name in known[:_STRONGEST]:
            estimates = found[name].pearson, found[name].spearman, found[name].beyond
            lines += [[cell, name, *map(str, estimates)]]
    return lines or [["", "none", "", "", ""]]


def _spread(findings: Findings, rows: Sequence[Row], family: str) -> str:
    values = [row[findings.reached] for row in rows if row["family"] == family]
    if not values:
        return "missing"
    mean, sd = mean_and_sd(values)
    return f"{mean:.3f} ± {sd:.3f} ({min(values):.3f} to {max(values):.3f})"


def _counts(findings: Findings, family: str) -> str:
    counts = [sum(row["family"] == family for row in rows) for rows in findings.networks.values()]
    return f"{max(counts)} graphs"


def _missing(findings: Findings, study: GraphStudy) -> list[str]:
    done, total = sum(map(len, findings.networks.values())), len(study.runs())
    return [] if done == total else [f"{done} of {total} networks are finished."]
