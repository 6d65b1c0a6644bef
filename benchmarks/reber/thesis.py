"""The thesis's graph study by the statistics of ours: what its 200 networks a cell tell beyond their number of sources.

Its results lie in the repository harshildarji/thesis (MIT licence), in Implementations/experiments/results/structure:

    python benchmarks/reber/thesis.py thesis/Implementations/experiments/results/structure
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


def tell(cell: str, path: Path) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
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
    for stem, cell in CELLS.items():
        tell(cell, folder / f"{stem}.csv")


if __name__ == "__main__":
    main()
