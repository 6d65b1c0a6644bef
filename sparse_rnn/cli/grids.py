"""What the commands have in common that run many fits."""

import sys
from collections.abc import Callable
from pathlib import Path

from sparse_rnn.errors import UsageError
from sparse_rnn.locks import alone


def run_and_report(run: Callable[[], list[str]], report: Callable[[], None], output: Path) -> None:
    """Run what is missing, and report what is there, also where the user stops it.

    Args:
        run: Runs it, and returns the names of what failed.
        report: Writes and prints the results.
        output: The folder of the runs, which no other process may use meanwhile.

    Raises:
        SystemExit: With status 1 where a run failed.
        KeyboardInterrupt: If the user stopped it.
        UsageError: If another process uses the folder, or it cannot be made.
    """
    busy = f"--output {output} is in use by another process: wait for its end, or give another folder."
    try:
        with alone(output / ".lock", busy):
            _run_and_report(run, report)
    except OSError as error:
        if Path(str(error.filename)) not in (output, output / ".lock"):
            raise
        raise UsageError(f"--output {output} cannot be made ({error.strerror}): give another folder.") from None


def _run_and_report(run: Callable[[], list[str]], report: Callable[[], None]) -> None:
    try:
        failed = run()
    except (KeyboardInterrupt, SystemExit):  # the latter of a polite kill
        report()
        raise
    report()
    if failed:
        print(f"{len(failed)} failed; the same command tries them again:", *failed, sep="\n", file=sys.stderr)
        sys.exit(1)
