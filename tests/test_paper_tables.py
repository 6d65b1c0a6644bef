"""The scripts of the paper's tables name fits that can run."""

import os
import subprocess
from pathlib import Path

import pytest

from sparse_rnn.cli.compare import parse
from sparse_rnn.cli.dry_run import check_fits

PAPER = Path(__file__).parent.parent / "benchmarks" / "paper"
GIVEN = ["--trainer.max_epochs", "3", "--seeds", "2"]
CELLS = {"table1": 4 * 3, "table2": 3 * 9, "table3": 1 + 3 * 2, "table5": 3 * 3}


@pytest.fixture
def words(tmp_path):
    """Gives the words of the command that a script runs."""
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\nprintf "%s\\0" "$@"\n')
    python.chmod(0o755)

    def words(table):
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        script = [str(PAPER / f"{table}.sh"), *GIVEN]
        said = subprocess.run(script, env=environment, check=True, capture_output=True, text=True).stdout
        return said.split("\0")[:-1]

    return words


@pytest.mark.parametrize("table", CELLS)
def test_a_table_is_one_comparison_that_can_run(words, table):
    python, module, command, *args = words(table)
    assert (python, module, command) == ("-m", "sparse_rnn", "compare")
    grid = parse(args)
    assert grid.output == Path("compare", table)
    assert grid.overrides == tuple(GIVEN[:2])
    assert len(grid.runs()) == 2 * CELLS[table]
    check_fits(grid)
