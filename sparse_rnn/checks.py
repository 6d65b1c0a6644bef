"""Checks of numeric options, all in one way: type, range, NaN, infinity and null, named in one sentence.

A boolean is no number, nor is a text that looks like one. Ranges are written as in mathematics: ``[0, 1)`` is from 0,
which belongs to it, to 1, which does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from sparse_rnn.errors import UsageError

LARGEST = 2**63 - 1  # what torch and NumPy count with has 64 bits
MOST_TIMES = 100_000  # of what is made or done one by one: with a slip such as 10¹² it would never end


def check_number(
    name: str, value: Any, interval: str = "(-inf, inf)", wanted: str = "", optional: bool = False, hint: str = ""
) -> None:
    """Refuse what is no number of an interval.

    Args:
        name: What the user calls the option.
        value: What the user gave.
        interval: The interval; infinity never belongs to it.
        wanted: What the number means.
        optional: Whether null is allowed.
        hint: What else may be given, or is usual.

    Raises:
        UsageError: If it is none.

    Example:
        >>> check_number("sparsity", float("nan"), "[0, 1)", "the share of weights to remove")
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: sparsity=nan: give the share of weights to remove, a number in [0, 1).
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    if value is None and optional:
        return
    if is_number(value):
        above = value > low or (value == low and interval[0] == "[")
        below = value < high or (value == high and interval[-1] == "]")
        if above and below and (abs(value) <= LARGEST if is_whole(value) else math.isfinite(value)):
            return
    kind = "a finite number" if interval == "(-inf, inf)" else f"a number in {interval}"
    if is_whole(value) and abs(value) > LARGEST:
        kind += f", of 64 bits (up to {LARGEST})"
    raise _refusal(name, value, kind, wanted, optional, hint)


def check_whole(
    name: str,
    value: Any,
    least: int = 0,
    most: int = LARGEST,
    wanted: str = "",
    optional: bool = False,
    hint: str = "",
) -> None:
    """Refuse what is no whole number of a range; 3.0 is none.

    Args:
        name: What the user calls the option.
        value: What the user gave.
        least: The smallest that will do.
        most: The largest that will do.
        wanted: What the number means.
        optional: Whether null is allowed.
        hint: What else may be given, or is usual.

    Raises:
        UsageError: If it is none.

    Example:
        >>> check_whole("rounds", True, least=1, wanted="the number of times to prune")
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: rounds=True: give the number of times to prune, a whole number of at least 1.
    """
    if value is None and optional:
        return
    if is_whole(value) and least <= value <= most:
        return
    range_ = f"of at least {least}" if most == LARGEST else f"from {least} to {most}"
    if is_whole(value) and value > LARGEST:
        range_ += f" and of 64 bits (up to {LARGEST})"
    raise _refusal(name, value, f"a whole number {range_}", wanted, optional, hint)


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False.

    Args:
        name: What the user calls the option.
        value: What the user gave.

    Raises:
        UsageError: If it is none.

    Example:
        >>> check_flag("bidirectional", None)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: bidirectional=None: give True or False.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{name}={value!r}: give True or False.")


def check_function(name: str, value: Any, wanted: str) -> None:
    """Refuse what cannot be called.

    Args:
        name: What the user calls the option.
        value: What the user gave.
        wanted: What the function is from and to.

    Raises:
        UsageError: If it cannot be called.

    Example:
        >>> check_function("optimizer", None, "from parameters to an optimizer")
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: optimizer=None: give a class or a function from parameters to an optimizer.
    """
    if not callable(value):
        raise UsageError(f"{name}={value!r}: give a class or a function {wanted}.")


def check_seed(seed: Any, least: int = -LARGEST - 1) -> None:
    """Refuse what is no seed: a whole number of 64 bits, of at least 0 where NumPy draws.

    Example:
        >>> check_seed(None)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: seed=None: give a whole number of 64 bits.
        >>> check_seed(-1, least=0)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: seed=-1: give a whole number of at least 0.
    """
    if least < 0 and not (is_whole(seed) and least <= seed <= LARGEST):
        raise UsageError(f"seed={seed!r}: give a whole number of 64 bits.")
    check_whole("seed", seed, least)


def items_of(name: str, value: Any, count: int | None = None) -> list[Any]:
    """Return what an option lists, or refuse what lists nothing.

    Args:
        name: What the user calls the option.
        value: What the user gave.
        count: How many there are to be; any number if not given.

    Raises:
        UsageError: If it is no list, or one of another length.

    Example:
        >>> items_of("block_size", 4, count=2)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: block_size=4: give a list of 2 numbers.
    """
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        items = value.tolist() if hasattr(value, "tolist") else list(value)
        if count is None or len(items) == count:
            return items
    raise UsageError(f"{name}={value!r}: give a list of {'' if count is None else f'{count} '}numbers.")


def is_number(value: Any) -> bool:
    """Tell whether something is a real number, be it infinite or NaN.

    Example:
        >>> [is_number(value) for value in (1, 0.5, True, "1", None)]
        [True, True, False, False, False]
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Tell whether something is a whole number, of Python's or NumPy's.

    Example:
        >>> [is_whole(value) for value in (1, 1.0, True, "1")]
        [True, False, False, False]
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def _refusal(name: str, value: Any, kind: str, wanted: str, optional: bool, hint: str) -> UsageError:
    meaning = f"{wanted}, {kind}" if wanted else kind
    others = ", ".join(filter(None, ["or null" if optional else "", hint]))
    return UsageError(f"{name}={value!r}: give {meaning}{', ' if others else ''}{others}.")
