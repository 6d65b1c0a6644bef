"""Print what each validation of a finished run of a comparison gave, as CSV: epochs, steps, sparsity and error.

python benchmarks/paper/history.py compare/schedule_table2_100/l2-0.95-model.hidden_size=100-seed0
"""

import csv
import sys
from pathlib import Path

from sparse_rnn.compare.results import SPARSITY, read_result

COLUMNS = ("epoch", "step", SPARSITY, "val/error")


def main() -> None:
    result = read_result(Path(sys.argv[1]))
    if result is None:
        sys.exit(f"{sys.argv[1]} has no result: its run has not finished.")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([round(at[name], 4) for name in COLUMNS] for at in result.history)


if __name__ == "__main__":
    main()
