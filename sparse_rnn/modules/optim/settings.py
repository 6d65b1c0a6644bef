"""Settings that a class of PyTorch refuses are a mistake of the user."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature

from sparse_rnn.errors import UsageError


@contextmanager
def settings_of(what: str) -> Iterator[None]:
    """Turn the ``ValueError`` with which PyTorch refuses the user's settings into a :class:`UsageError`.

    Args:
        what: What the settings belong to, the subject of the error's sentence.

    Raises:
        UsageError: If the block raised a ``ValueError``.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.optim import settings_of
        >>> with settings_of("The optimizer"):
        ...     torch.optim.SGD([torch.zeros(1)], lr=-1.0)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: The optimizer refuses its settings: Invalid learning rate: -1.0.
    """
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{what} refuses its settings: {str(error).rstrip('.')}.") from error


def is_default_of(function: Callable[..., object], name: str, value: object) -> bool:
    """Tell whether an argument is the very object that is its default.

    Args:
        function: What takes the argument.
        name: The argument's name.
        value: What it was given.
    """
    return value is signature(function).parameters[name].default
