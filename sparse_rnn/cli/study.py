"""``python -m sparse_rnn study``: what sparsity does to recurrent networks, told by many fits."""

from collections.abc import Callable, Sequence

from sparse_rnn.cli import graph_study, pruning_study
from sparse_rnn.cli.arguments import Parser

_STUDIES: dict[str, Callable[[Sequence[str]], None]] = {"pruning": pruning_study.run, "graphs": graph_study.run}


def study(args: Sequence[str]) -> None:
    """Run one of the studies.

    Args:
        args: What follows ``study`` on the command line.

    Raises:
        SystemExit: With status 0 after ``--help``, 1 where a run failed, 130 where the user stopped it.
        UsageError: If there is no such study, or an argument cannot be used.
        MissingFileError: If a config is unknown.
    """
    parser = Parser(
        prog="python -m sparse_rnn study",
        description="What sparsity does to recurrent networks, told by many fits.",
        epilog="; ".join(f"{name}: {run.__doc__.splitlines()[0]}" for name, run in _STUDIES.items() if run.__doc__),
        allow_abbrev=False,
    )
    parser.add_argument("study", choices=list(_STUDIES), help="which one; it has its own --help")
    _STUDIES[parser.parse_args(args[:1]).study](args[1:])
