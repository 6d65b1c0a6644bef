"""The command line: ``python -m sparse_rnn COMMAND``, of which ``--help`` names all."""

from sparse_rnn.cli.main import main

__all__ = ["main"]
