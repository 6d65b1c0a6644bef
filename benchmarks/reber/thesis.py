"""The thesis's pruning tables as ours, and its graph study by our statistics, beyond the number of sources.

Its results lie in the repository harshildarji/thesis (MIT licence), in Implementations/experiments/results:

    python benchmarks/reber/thesis.py thesis/Implementations/experiments/results
"""

import argparse
import csv
from pathlib import Path

from sparse_rnn.compare.statistics import mean_and_sd
from sparse_rnn.studies.graphs import FAMILIES
from sparse_rnn.studies.prediction import correlations, explained

CELLS = {"rnn_tanh": "tanh", "rnn_relu": "relu", "gru": "GRU", "lstm": "LSTM"}
SOURCES = "source_nodes"
PROPERTIES = slice(3, -3)  # after the mode and the graph, before accuracy, loss and time
SCOPES = {"hidden-to-hidden": "_prune_h2h", "input-to-hidden": "_prune_i2h", "both": "_prune"}
REMOVED, SHOWN = ("70", "90", "100"), ("0", "1", "10")  # percent, and epochs of retraining

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def error(row: Row) -> str:
    return f"{100 * (1 - float(row['test_acc'])):.1f}"


def pruned(cell: str, scope: str, rows: list[Row]) -> str:
    """Write the errors when trained, then right after pruning > after one > after ten epochs of retraining."""
    found = [error([row for row in rows if row["prune"] == "0"][-1])]
    for removed in REMOVED:
        own = {row["epoch"]: row for row in rows if row["mode"].endswith(SCOPES[scope]) and row["prune"] == removed}
        found.append(" > ".join(error(own[epoch]) for epoch in SHOWN))
    return f"| {scope} | {cell} | {' | '.join(found)} |"


def tell(cell: str, rows: list[Row]) -> None:
    for family in FAMILIES:
        accuracies = [float(row["test_acc"]) for row in rows if row["graph"] == family]
        mean, sd = mean_and_sd(accuracies)
        print(f"{cell}, {len(accuracies)} graphs of {family}: accuracy {mean:.3f} ± {sd:.3f}")
    names = list(rows[0])[PROPERTIES]
    features = {name: [float(row[name]) for row in rows] for name in names}
    reached = [float(row["test_acc"]) for row in rows]
    for name, found in explained(features, reached, SOURCES).items():
        print(f"{cell}, {name}: R² all {found.every}, sources alone {found.base}, gain {found.gain}, "
              f"importance of sources {found.importance[SOURCES]:.2f}")  # fmt: skip
    strongest = sorted(correlations(features, reached, SOURCES).items(), key=lambda item: -abs(item[1].pearson.value))
    for name, correlation in strongest[:6]:
        print(f"{cell}, {name}: Pearson {correlation.pearson}, beyond sources {correlation.beyond}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for scope in SCOPES:
        for stem, cell in CELLS.items():
            print(pruned(cell, scope, read(folder / "prune" / f"{stem}.csv")))
    for stem, cell in CELLS.items():
        tell(cell, read(folder / "structure" / f"{stem}.csv"))


if __name__ == "__main__":
    main()
