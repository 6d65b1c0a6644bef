"""Mistakes of the user, as opposed to ours: the command line says them in one line, all others keep their traceback."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_PARSER_NOISE = (
    "Does not validate against",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
    "Given value type",
    "Given value: NestedArg",
    "Given value: Namespace",
    "Given value: {'class_path'",
)


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


def check_text(name: str, value: str) -> None:
    r"""Refuse what no file, folder or page can have in its name or text: NUL, and bytes that are no UTF-8.

    The system and the libraries complain of it wherever they meet it, each in its own way.

    Args:
        name: What to call the value in the message.
        value: The value; Python has put surrogates in the place of bytes that are no UTF-8.

    Raises:
        UsageError: If it has one.

    Example:
        >>> check_text("--output", "a\0b")
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: --output 'a\x00b' has a NUL, or is no UTF-8: give another name.
    """
    try:
        fine = b"\0" not in value.encode()
    except UnicodeEncodeError:
        fine = False
    if not fine:
        raise UsageError(f"{name} {value[:200]!r} has a NUL, or is no UTF-8: give another name.")


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise a UsageError as itself where a library has made an error of its own of it, as jsonargparse does.

    Example:
        >>> with unwrapped():
        ...     raise ValueError("Does not validate") from UsageError("sparsity=2: give less than 1.")
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: sparsity=2: give less than 1.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UsageError):
            cause = cause.__cause__
        if cause is None or cause is error:
            raise
        raise cause from error


def one_line(message: str) -> str:
    r"""Put a message into one line, without what jsonargparse says of its own types.

    Args:
        message: What another library says, on any number of lines.

    Returns:
        The lines that help a user, one behind the other.

    Example:
        >>> one_line("Does not validate against any of the Union subtypes:\n  - Expected a number.")
        'Expected a number.'
    """
    message = _UNKNOWN_CLASS.sub(r"there is no class \1; give a name that --help lists, or an import path", message)
    message = message.partition("Subclass types")[0]  # a list of all that there are
    lines = (line.strip().removeprefix("- ") for line in message.splitlines())
    return " ".join(line for line in lines if line and not line.startswith(_PARSER_NOISE))
