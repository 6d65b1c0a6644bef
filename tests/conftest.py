import pytest

from sparse_rnn.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command line in an empty folder, without a progress bar."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        main(args)

    return run


@pytest.fixture
def refused(run, capsys):
    """Runs a command line that must fail, and gives its one line on stderr."""

    def refused(*args):
        with pytest.raises(SystemExit) as exit_:
            run(*args)
        assert exit_.value.code == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return refused
