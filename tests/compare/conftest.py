import pytest

from sparse_rnn.cli.compare import parse
from sparse_rnn.compare.results import Result
from sparse_rnn.compare.tuning import choose


@pytest.fixture
def invented(tmp_path):
    """Gives a grid on digits, and a result for each run of it, from a function of the run to its last error."""

    def invented(error, *args, name="val/error", seconds=2.0):
        grid = parse(["--config", "gru_digits.yaml", "--sparsity", "0.9", "--output", str(tmp_path), *args])

        def result(run):
            last = error(run)
            history = [{"epoch": 1.0, "step": 10, name: last - 1}, {"epoch": 2.0, "step": 20, name: last}]
            return Result(
                run, {name: last, "val/acc": 0.5}, seconds, [], f"commit {run.seed}", 20, "last.ckpt", history
            )

        tuning = [result(run) for run in grid.tuning_runs()]
        return grid, [*tuning, *(result(run) for run in grid.runs(choose(grid, tuning)))]

    return invented


@pytest.fixture
def cells_of():
    """Gives the cells of a Markdown table: row and column to text."""

    def cells_of(text):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
        return {(row[0], column): cell for row in rows[2:] for column, cell in zip(rows[0][1:], row[1:], strict=True)}

    return cells_of
