"""``python -m sparse_rnn``: hands the arguments to a command and says in one line what the user can mend."""

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from sparse_rnn.errors import UsageError, one_line


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: What follows the program's name; None takes it from ``sys.argv``.

    Raises:
        SystemExit: With status 2 and one line on stderr where a value that the user gave is at fault.

    Example:
        >>> main(["compare", "--config", "gru_digits.yaml", "--sparsity", "0.9"])  # stderr says what is missing
        Traceback (most recent call last):
        SystemExit: 2
    """
    args = list(sys.argv[1:] if args is None else args)
    try:
        _command(args[:1])(args)
    except UsageError as error:
        _exit(str(error))


def _command(name: Sequence[str]) -> Callable[[list[str]], object]:
    """Find the command of that name; what it needs is imported only now, as it would slow the start of all others."""
    if name == ["compare"]:
        from sparse_rnn.cli.compare import compare

        return lambda args: compare(args[1:])
    if name == ["analyze"]:
        from sparse_rnn.cli.analyze import analyze

        return lambda args: analyze(args[1:])
    if name == ["export"]:
        from sparse_rnn.cli.export import export

        return lambda args: export(args[1:])
    if name == ["bench"]:
        from sparse_rnn.cli.bench import bench

        return lambda args: bench(args[1:])
    if name == ["generate"]:
        from sparse_rnn.cli.generate import generate

        return lambda args: generate(args[1:])
    if name == ["study"]:
        from sparse_rnn.cli.study import study

        return lambda args: study(args[1:])
    if name == ["shrink"]:
        from sparse_rnn.cli.shrink import shrink

        return lambda args: shrink(args[1:])
    from sparse_rnn.cli.fit import PruningCLI

    return PruningCLI


def _exit(message: str) -> NoReturn:
    sys.stderr.write(f"error: {one_line(message)}\n")
    sys.exit(2)
