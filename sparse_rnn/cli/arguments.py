"""Command lines that Lightning's parser does not read."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from sparse_rnn.compare.axes import Axis, parse_axis
from sparse_rnn.errors import UsageError
from sparse_rnn.paths import check_local


class Parser(argparse.ArgumentParser):
    """A parser that raises its complaints, which the command line says in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the message."""
        raise UsageError(message)


def axis_argument(text: str) -> Axis:
    """Read an argument of ``fit`` and its values, as in ``model.hidden_size=100,400``."""
    try:
        return parse_axis(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def sparsities_argument(text: str) -> tuple[float, ...]:
    """Read numbers separated by commas."""
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"give numbers separated by commas, as in 0.9,0.95, not {text!r}") from None


def output_argument(text: str) -> Path:
    """Read the place of what a command writes, which is on this machine."""
    try:
        check_local(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def positive(text: str) -> int:
    """Read a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"give a whole number from 1 on, not {text!r}")
    return int(text)


def check_free(overrides: Sequence[str], axes: Sequence[Axis], set_by: Mapping[str, str]) -> None:
    """Refuse arguments of ``fit`` that a command sets itself, among those that are handed on and those of axes.

    Args:
        overrides: The words that are handed on to every fit.
        axes: The axes of a table.
        set_by: Argument to the option that sets it.

    Raises:
        UsageError: If there is one.
    """
    for name in (*(override.partition("=")[0] for override in overrides), *(f"--{axis.key}" for axis in axes)):
        if name in set_by:
            raise UsageError(f"{name} is set by the command itself: use {set_by[name]}.")
