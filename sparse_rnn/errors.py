"""Mistakes of the user, as opposed to ours: the command line says them in one line, all others keep their traceback."""

from typing import Any, get_args


class UsageError(ValueError):
    """A value that the user gave cannot be used.

    The message is one clear sentence: what is wrong, which value, and what to do about it.
    """


class MissingFileError(UsageError, FileNotFoundError):
    """A file that the user named does not exist."""


def check_choice(name: str, value: str, choices: Any) -> None:
    """Refuse a value that a ``Literal`` type does not list.

    Args:
        name: What to call the value in the message.
        value: The value.
        choices: The ``Literal`` type.

    Raises:
        UsageError: If the value is not among them.

    Example:
        >>> from typing import Literal
        >>> check_choice("growth", "linear", Literal["gradient", "random"])
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: growth='linear': choose one of gradient, random.
    """
    if value not in get_args(choices):
        raise UsageError(f"{name}={value!r}: choose one of {', '.join(get_args(choices))}.")
