import pytest

from sparse_rnn.cli.grids import run_and_report
from sparse_rnn.errors import UsageError
from sparse_rnn.locks import alone


def run(folder, *, failed=(), stop=None):
    """Run, and return the status and how often there was a report."""
    reports = []

    def fits():
        if stop is not None:
            raise stop
        return list(failed)

    try:
        run_and_report(fits, lambda: reports.append("told"), folder)
    except SystemExit as exit_:
        return exit_.code, len(reports)
    except KeyboardInterrupt:
        return "Ctrl-C", len(reports)
    return 0, len(reports)


def test_there_is_one_report_however_it_ends(capsys, tmp_path):
    assert run(tmp_path) == (0, 1)
    assert run(tmp_path, failed=["b", "c"]) == (1, 1)
    assert capsys.readouterr().err.splitlines() == ["2 failed; the same command tries them again:", "b", "c"]
    assert run(tmp_path, stop=KeyboardInterrupt()) == ("Ctrl-C", 1)
    assert run(tmp_path, stop=SystemExit(143)) == (143, 1)


def test_a_folder_in_use_is_left_alone(tmp_path):
    with alone(tmp_path / ".lock"), pytest.raises(UsageError, match=r"in use by another process: wait"):
        run(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made"):
        run(tmp_path / "file")
