"""Command lines that Lightning's parser does not read."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import NoReturn

from sparse_rnn.checks import LARGEST, MOST_TIMES, check_number, check_whole
from sparse_rnn.compare.axes import Axis, parse_axis
from sparse_rnn.compare.words import names_in, without_init_args
from sparse_rnn.errors import UsageError
from sparse_rnn.paths import check_local
from sparse_rnn.scores import Criterion, criterion_named, criterion_names

_SET_BY_EVERY_TABLE = {
    "--config": "-c, whose configs are those of all fits",
    "--ckpt_path": "none, as each fit begins anew or goes on from a checkpoint of its own",
}


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


def criterion_argument(name: str) -> str:
    """Read the name of a criterion, or the import path of one."""
    if "." in name:
        kind = locate(name)
        if not isinstance(kind, type) or not issubclass(kind, Criterion):
            raise argparse.ArgumentTypeError(f"{name!r} is not the import path of a criterion")
        return name
    try:
        criterion_named(name)
    except UsageError:
        raise argparse.ArgumentTypeError(
            f"there is no criterion {name!r}; choose from {', '.join(criterion_names())}, or give an import path"
        ) from None
    return name


def output_argument(text: str) -> Path:
    """Read the place of what a command writes, which is on this machine."""
    try:
        check_local(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def positive(text: str) -> int:
    """Read a whole number from 1 on, of 64 bits."""
    return _whole(text, "from 1 on", LARGEST)


def times(text: str) -> int:
    """Read how often something is done, one after the other."""
    return _whole(text, f"from 1 to {MOST_TIMES}", MOST_TIMES)


def seconds(text: str) -> float:
    """Read how long something is done."""
    try:
        number = float(text)
        check_number("seconds", number, "[0, inf)")
    except ValueError:  # of a number, too
        raise argparse.ArgumentTypeError(f"give a finite number from 0 on, not {text!r}") from None
    return number


def _whole(text: str, wanted: str, most: int) -> int:
    try:
        number = int(text)
        check_whole("number", number, 1, most)
    except ValueError:
        raise argparse.ArgumentTypeError(f"give a whole number {wanted}, not {text[:30]!r}") from None
    return number


def check_free(words: Sequence[str], axes: Sequence[Axis], set_by: Mapping[str, str]) -> None:
    """Refuse arguments of ``fit`` that a command sets itself, and axes of the same argument.

    Args:
        words: The words that are handed on to fits.
        axes: The axes of a table.
        set_by: Argument, without ``init_args``, to the option that sets it.

    Raises:
        UsageError: If there is one.
    """
    keys = [without_init_args(axis.key) for axis in axes]
    for name in (*names_in(words), *(f"--{key}" for key in keys)):
        advice = set_by.get(name) or _SET_BY_EVERY_TABLE.get(name)
        if advice:
            raise UsageError(f"{name} is set by the command itself: use {advice}.")
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"{key} is varied or tuned twice: give all its values at once.")
