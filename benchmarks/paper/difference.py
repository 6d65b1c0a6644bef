"""Print how one method of a table's CSV differs from another, seed by seed, with the 95 % interval, and in per cent.

python benchmarks/paper/difference.py benchmarks/paper/table2_100.csv jacobian_paper jacobian_author

A second CSV, after the first, is where the second method stands:

python benchmarks/paper/difference.py benchmarks/recipe/{recipe_,}wikitext2.csv recipe Random
"""

import csv
import sys
from statistics import mean

from sparse_rnn.compare.statistics import paired_difference


def values(path: str, method: str, **varied: str) -> dict[int, float]:
    """Read the final error or perplexity of every seed of a method, at values of what the table varies."""
    wanted = {"stage": "final", "method": method, **varied}
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if wanted.items() <= row.items()]
    return {int(row["seed"]): float(row["val/error" if "val/error" in row else "val/ppl"]) for row in rows}


def main() -> None:
    *paths, one, other = sys.argv[1:]
    ours, theirs = values(paths[0], one), values(paths[-1], other)
    shared = ours.keys() & theirs.keys()
    share = mean(ours[seed] for seed in shared) / mean(theirs[seed] for seed in shared) - 1
    print(f"{one} minus {other}: {paired_difference(ours, theirs)}")
    print(f"{one} over {other}, of the seeds that both have: {100 * share:+.1f} %")


if __name__ == "__main__":
    main()
