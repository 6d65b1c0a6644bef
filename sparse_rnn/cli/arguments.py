"""Command lines that Lightning's parser does not read."""

import argparse
from typing import NoReturn

from sparse_rnn.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser that raises its complaints, which the command line says in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the message."""
        raise UsageError(message)


def positive(text: str) -> int:
    """Read a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number
