"""Print how one method of a table's CSV differs from another, seed by seed, with the 95 % interval, and in per cent.

python benchmarks/paper/difference.py benchmarks/paper/table2_100.csv jacobian_paper jacobian_author

A second CSV, after the first, is where the second method stands:

python benchmarks/paper/difference.py benchmarks/recipe/{recipe_,}wikitext2.csv recipe Random

Where a method's seeds stand in several CSVs, these are joined by a comma:

cd benchmarks/paper && python difference.py dense_table2_400.csv,dense_seeds_table2_400.csv table2_400.csv dense Random

What a table varies is given a value where it has several, as in model.optimizer.init_args.lr=0.01.
"""

import csv
import sys
from statistics import mean

from sparse_rnn.compare.statistics import paired_difference

METRICS = ("val/error", "val/ppl", "train/ppl_sample")


def values(paths: str, method: str, metric: str | None = None, **varied: str) -> dict[int, float]:
    """Read a metric, by default the first of the table, of a method's seeds, at values of what the table varies."""
    wanted = {"stage": "final", "method": method, **varied}
    rows = []
    for path in paths.split(","):
        with open(path, newline="") as file:
            rows += [row for row in csv.DictReader(file) if wanted.items() <= row.items()]
    return {int(row["seed"]): float(row[metric or next(name for name in METRICS if name in row)]) for row in rows}


def main() -> None:
    *given, one, other = sys.argv[1:]
    varied = dict(word.split("=", 1) for word in given if "=" in word)
    paths = [word for word in given if "=" not in word]
    with open(paths[0].partition(",")[0]) as file:
        columns = file.readline().rstrip().split(",")
    for metric in (name for name in METRICS if name in columns):
        ours, theirs = values(paths[0], one, metric, **varied), values(paths[-1], other, metric, **varied)
        shared = ours.keys() & theirs.keys()
        share = mean(ours[seed] for seed in shared) / mean(theirs[seed] for seed in shared) - 1
        print(f"{metric}: {one} minus {other}: {paired_difference(ours, theirs)}")
        print(f"{metric}: {one} over {other}, of the seeds that both have: {100 * share:+.1f} %")


if __name__ == "__main__":
    main()
