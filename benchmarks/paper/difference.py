"""Print how much one method of a table's CSV differs from another, seed by seed, with the 95 % interval.

python benchmarks/paper/difference.py benchmarks/paper/table2.csv jacobian_paper jacobian_author
"""

import csv
import sys

from sparse_rnn.compare.statistics import paired_difference


def main() -> None:
    path, *methods = sys.argv[1:]
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == "final"]
    one, other = ({int(r["seed"]): float(r["val/error"]) for r in rows if r["method"] == method} for method in methods)
    print(f"{methods[0]} minus {methods[1]}: {paired_difference(one, other)}")


if __name__ == "__main__":
    main()
