"""Shows an object as the call that makes it."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

_ALWAYS = ("sparsity", "criterion")  # what a pruning is about
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_SHORT = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = 120  # letters; no schedule has more


def given(kind: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of a class by their names, defaults included; none where it takes no such call.

    Example:
        >>> class Keep:
        ...     def __init__(self, share, every=1, **more): ...
        >>> given(Keep, [0.5], {"seed": 3})
        {'share': 0.5, 'every': 1, 'seed': 3}
    """
    parameters = _parameters(kind)
    try:
        bound = inspect.Signature(list(parameters.values())).bind(*args, **kwargs)
    except TypeError:  # what the call itself will say
        return {}
    bound.apply_defaults()
    values = dict(bound.arguments)
    more = [name for name, found in parameters.items() if found.kind is inspect.Parameter.VAR_KEYWORD]
    return values | {key: value for name in more for key, value in values.pop(name).items()}


def as_called(kind: type, values: Mapping[str, Any]) -> str:
    """Write the call that makes an object: sparsity and criterion, and what is not at its default.

    Args:
        kind: The class of the object.
        values: Its arguments by name, among others; those that are not there are left out.

    Example:
        >>> from sparse_rnn.callbacks import OneShotPruning, SparsityMonitor
        >>> OneShotPruning(0.9, kernels=["*weight_hh*"])
        OneShotPruning(sparsity=0.9, criterion='jacobian', kernels=['*weight_hh*'])
        >>> SparsityMonitor(histograms=True)
        SparsityMonitor(histograms=True)
    """
    shown = [
        f"{name}={_shown(values[name])}"
        for name, parameter in all_parameters(kind).items()
        if name in values and _is_said(name, values[name], parameter.default)
    ]
    return f"{kind.__name__}({', '.join(shown)})"


def _is_said(name: str, value: Any, default: Any) -> bool:
    return (name in _ALWAYS and value is not None) or _shown(value) != _shown(default)


def all_parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return what a class is called with, and its parents, where it hands on what it does not name itself.

    Example:
        >>> class Keep:
        ...     def __init__(self, share): ...
        >>> class KeepOften(Keep):
        ...     def __init__(self, every=1, **more): ...
        >>> list(all_parameters(KeepOften))
        ['share', 'every']
    """
    own = _parameters(kind)
    handed_on = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in own.values())
    named = {name: found for name, found in own.items() if found.kind in _NAMED}
    return (all_parameters(kind.__mro__[1]) if handed_on and kind is not object else {}) | named


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return what a class is called with; its ``__new__``, which may take anything, does not count."""
    _, *parameters = inspect.signature(kind.__init__).parameters.items()  # type: ignore[misc]  # it is not called
    return dict(parameters)


def _shown(value: Any) -> str:
    """Write a value on one short line, an object that has no words of its own by its class."""
    if type(value).__repr__ is object.__repr__:
        return f"{type(value).__name__}()"
    return " ".join(_SHORT.repr(value).split())
