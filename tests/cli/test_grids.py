from sparse_rnn.cli.grids import run_and_report


def run(*, failed=(), stopped=False):
    """Run, and return the status and how often there was a report."""
    reports = []

    def fits():
        if stopped:
            raise KeyboardInterrupt
        return list(failed)

    try:
        run_and_report(fits, lambda: reports.append("told"))
    except SystemExit as exit_:
        return exit_.code, len(reports)
    return 0, len(reports)


def test_there_is_one_report_however_it_ends(capsys):
    assert run() == (0, 1)
    assert run(failed=["b", "c"]) == (1, 1)
    assert capsys.readouterr().err.splitlines() == ["2 failed; the same command tries them again:", "b", "c"]
    assert run(stopped=True) == (130, 1)
    assert "The same command goes on" in capsys.readouterr().err
