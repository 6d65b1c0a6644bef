"""Docstrings, which are the text of ``--help`` as well, completed by what several things have in common, told once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

Described = TypeVar("Described", bound=Callable[..., Any])


def described_by(shared: str) -> Callable[[Described], Described]:
    r"""Return what completes the Args section of a docstring, in the order of the signature.

    It raises a KeyError for an argument that is described neither in the docstring nor here. It takes a function, or a
    class whose docstring describes the arguments of its ``__init__``.

    Args:
        shared: An Args section with the arguments that several things have.

    Example:
        >>> @described_by("Args:\n    seed: Seed of all random numbers.")
        ... def draw(model, seed=0):
        ...     '''Draw weights.
        ...
        ...     Args:
        ...         model: The model.
        ...     '''
        >>> print(draw.__doc__)
        Draw weights.
        <BLANKLINE>
        Args:
            model: The model.
            seed: Seed of all random numbers.
    """
    _, descriptions, _ = _sections(shared)

    def described(thing: Described) -> Described:
        before, own, after = _sections(inspect.cleandoc(thing.__doc__ or ""))
        function = vars(thing)["__init__"] if isinstance(thing, type) else thing
        names = [name for name in inspect.signature(function).parameters if name != "self"]
        entries = [own[name] if name in own else descriptions[name] for name in names]
        thing.__doc__ = "\n".join([before, "", "Args:", *entries, *(["", after] if after else [])])
        return thing

    return described


def _sections(text: str) -> tuple[str, dict[str, str], str]:
    """Split a docstring into what comes before the Args section, its entries by name, and what comes after it."""
    before, _, rest = text.partition("Args:\n")
    arguments, *others = re.split(r"^(?=\S)", rest, maxsplit=1, flags=re.MULTILINE) if rest else [""]
    entries = re.split(r"^(?= {4}\S)", arguments.rstrip(), flags=re.MULTILINE)
    own = {entry.partition(":")[0].strip(): entry.rstrip() for entry in entries if entry.strip()}
    return before.rstrip(), own, "".join(others)
