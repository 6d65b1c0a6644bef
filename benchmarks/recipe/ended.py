"""Print the validation errors that fits, as of long.sh, ended with, and the best of any epoch, over their seeds.

Folders of TensorBoard logs are read first, and what they hold is kept in the CSV, in place of what it held:

    python benchmarks/recipe/ended.py benchmarks/recipe/long_100.csv [lightning_logs/version_0 …]
"""

import csv
import sys
from pathlib import Path

import yaml

from sparse_rnn.analysis.curves import read_curves
from sparse_rnn.compare.statistics import mean_and_sd

METRIC = "val/error"


def keep(path: Path, folders: list[Path]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "step", METRIC])
        for folder in folders:
            seed = yaml.safe_load((folder / "config.yaml").read_text())["seed_everything"]
            curve = read_curves(folder)[METRIC]
            writer.writerows([seed, *validation] for validation in zip(curve.steps, curve.values, strict=True))


def main() -> None:
    path, *folders = map(Path, sys.argv[1:])
    if folders:
        keep(path, folders)
    errors: dict[str, list[float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            errors.setdefault(row["seed"], []).append(float(row[METRIC]))
    for name, of in {"after the last epoch": lambda run: run[-1], "best of any epoch": min}.items():
        found = [of(run) for run in errors.values()]
        mean, sd = mean_and_sd(found)
        spread = f" ± {sd:.3f}" if len(found) > 1 else ""
        print(f"{name}: {mean:.3f}{spread}, by seed {' '.join(f'{error:.2f}' for error in found)}")


if __name__ == "__main__":
    main()
