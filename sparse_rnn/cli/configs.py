"""``python -m sparse_rnn configs``: the configs that are shipped, each with a line."""

from __future__ import annotations

from collections.abc import Sequence

from sparse_rnn.cli.arguments import Parser
from sparse_rnn.config_files import shipped_configs


def configs(args: Sequence[str]) -> None:
    """Print the names of the shipped configs and what each is.

    Args:
        args: What follows ``configs`` on the command line.

    Raises:
        UsageError: If there is an argument.
        SystemExit: With status 0 after ``--help``.
    """
    Parser(
        prog="python -m sparse_rnn configs",
        description="List the configs that fit, compare and study find by their names. A config of the folder pruning "
        "stands after another one, and says how that one's network is pruned: fit --config gru_mnist.yaml --config "
        "pruning/rigl.yaml.",
        allow_abbrev=False,
    ).parse_args(args)
    known = shipped_configs()
    width = max(map(len, known))
    print("\n".join(f"{name:<{width}}  {what}" for name, what in known.items()))
