"""What the command line says before it knows which command is meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import version

from sparse_rnn.errors import UsageError

PROGRAM = "python -m sparse_rnn"

LIGHTNING = {
    "fit": "train a network, and prune it as its config says",
    "validate": "measure a checkpoint on the validation data",
    "test": "measure a checkpoint on the test data",
    "predict": "write what a checkpoint predicts to a file",
}
"""Commands of Lightning's command line."""

OURS = {
    "compare": "fit with several criteria, methods, sparsities and seeds, and put the results into one table",
    "study": "tell what sparsity, or the graph of a network, does to what the network reaches",
    "analyze": "draw figures of checkpoints, and write them into one page",
    "shrink": "remove units of a trained network, so that its layers are smaller",
    "export": "write a trained network for deployment, with its kept weights only",
    "bench": "time the layers of a checkpoint, dense and sparse, on this machine",
    "generate": "let a language model go on with a text",
    "configs": "list the configs that are shipped",
}
"""Commands of our own: each is a function of that name in a file of that name."""


def overview() -> str:
    """Describe the command line: what it is for, its commands, and where to begin.

    Example:
        >>> print(overview().splitlines()[0])
        usage: python -m sparse_rnn COMMAND ...
    """
    return "\n\n".join(
        [
            f"usage: {PROGRAM} COMMAND ...",
            "Prune recurrent networks: before, while or after they train, and make them pay.",
            _listed("Train and measure one network:", LIGHTNING),
            _listed("Everything around it:", OURS),
            f"A first run, without a download: {PROGRAM} fit --config gru_digits.yaml\n"
            f"Options of a command: {PROGRAM} COMMAND --help. This program: --help, --version.",
        ]
    )


def version_line() -> str:
    """Name the program and its version.

    Example:
        >>> version_line().split()[0]
        'sparse_rnn'
    """
    return f"sparse_rnn {version('sparse_rnn')}"


def unknown(word: str) -> UsageError:
    """Say that there is no such command, and which ones are close.

    Args:
        word: What was typed.

    Example:
        >>> print(unknown("fti"))
        There is no command 'fti'; close: fit. python -m sparse_rnn --help lists them all.
    """
    close = difflib.get_close_matches(word, [*LIGHTNING, *OURS])
    found = f"; close: {', '.join(close)}" if close else ""
    return UsageError(f"There is no command {word!r}{found}. {PROGRAM} --help lists them all.")


def _listed(title: str, commands: Mapping[str, str]) -> str:
    return "\n".join([title, *(f"  {name:<9} {what}" for name, what in commands.items())])
