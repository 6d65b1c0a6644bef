"""Print what docs/studies.md tells of our pruning and graph studies, from the CSVs that lie here.

python benchmarks/reber/tables.py
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from sparse_rnn.compare.statistics import mean_and_sd, paired_difference
from sparse_rnn.studies.graphs import FAMILIES
from sparse_rnn.studies.prediction import Estimate, correlations, explained
from sparse_rnn.studies.properties import SOURCES

HERE = Path(__file__).parent
SCOPES = ("hidden-to-hidden", "input-to-hidden", "both")
SPARSITIES = (0.7, 0.9, 1.0)
GRU, REPEATED = "model cell=gru", "model cell=gru, gate_masks=repeated"
PROPERTIES = slice(5, None)  # after cell, family, number, seconds and accuracy

Row = dict[str, str]
Runs = dict[tuple[str, str, float], dict[str, list[float]]]


def read(name: str) -> list[Row]:
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def runs_of(rows: list[Row]) -> Runs:
    """Group validation errors by cell, scope and sparsity, then by seed, in the order of the validations."""
    runs: Runs = {}
    for row in rows:
        model = json.loads(row["model"])
        place = model.get("nonlinearity", model["cell"]), row["scope"], float(row["sparsity"])
        runs.setdefault(place, {}).setdefault(row["seed"], []).append(float(row["val/error"]))
    return runs


def pruning_table(runs: Runs, scope: str) -> Iterator[str]:
    """Write the errors when trained, then right after pruning > after each epoch of retraining, means over seeds."""
    yield f"| {scope} | trained | {' | '.join(f'{100 * sparsity:.0f} %' for sparsity in SPARSITIES)} |"
    for cell in dict.fromkeys(cell for cell, *_ in runs):
        found = [f"{mean(errors[-1] for errors in runs[cell, 'dense', 0.0].values()):.2f}"]
        for sparsity in SPARSITIES:
            seeds = runs.get((cell, scope, sparsity), {}).values()
            found.append(" > ".join(f"{mean(errors):.2f}" for errors in zip(*seeds, strict=True)) or "not run")
        yield f"| {cell} | {' | '.join(found)} |"


def graph_tables(rows: list[Row]) -> Iterator[str]:
    """Write accuracies, R² and correlations of each cell, and what the repeated masks differ from the right ones by."""
    yield f"{len(rows)} networks"
    for cell in dict.fromkeys(row["cell"] for row in rows):
        own = [row for row in rows if row["cell"] == cell]
        for family in FAMILIES:
            accuracies = [float(row["accuracy"]) for row in own if row["family"] == family]
            average, sd = mean_and_sd(accuracies)
            yield f"{cell}, {family}: {average:.3f} ± {sd:.3f} ({min(accuracies):.3f} to {max(accuracies):.3f})"
        features = {name: [float(row[name]) for row in own] for name in list(rows[0])[PROPERTIES]}
        reached = [float(row["accuracy"]) for row in own]
        for name, found in explained(features, reached, SOURCES).items():
            importance = Estimate(found.importance[SOURCES])
            yield f"{cell}, {name}: all {found.every}, sources {found.base}, gain {found.gain}, importance {importance}"
        for name, correlation in correlations(features, reached, SOURCES).items():
            yield f"{cell}, {name}: Pearson {correlation.pearson}, beyond sources {correlation.beyond}"
    repeated, right = (
        {(row["family"], row["number"]): 100 * float(row["accuracy"]) for row in rows if row["cell"] == cell}
        for cell in (REPEATED, GRU)
    )
    found = paired_difference(repeated, right)
    if found is not None:
        points = Estimate(found.mean, found.low, found.high)
        yield f"repeated masks minus the right ones, graph by graph, points of accuracy: {points} (n={found.pairs})"


def main() -> None:
    for task in ("original", "honest", "one_layer", "embedded"):
        runs = runs_of(read(f"{task}.csv"))
        for scope in SCOPES:
            print(f"\n{task}", *pruning_table(runs, scope), sep="\n")
    print("", *graph_tables(read("graphs.csv")), sep="\n")


if __name__ == "__main__":
    main()
