"""What the commands have in common that run many fits."""

import sys
from collections.abc import Callable


def run_and_report(run: Callable[[], list[str]], report: Callable[[], None]) -> None:
    """Run what is missing, and report what is there, also where the user stops it.

    Args:
        run: Runs it, and returns the names of what failed.
        report: Writes and prints the results.

    Raises:
        SystemExit: With status 1 where a run failed, 130 where the user stopped it.
    """
    try:
        failed = run()
    except KeyboardInterrupt:
        report()
        print("Stopped. The same command goes on; runs that were not finished start anew.", file=sys.stderr)
        sys.exit(130)
    report()
    if failed:
        print(f"{len(failed)} failed; the same command tries them again:", *failed, sep="\n", file=sys.stderr)
        sys.exit(1)
