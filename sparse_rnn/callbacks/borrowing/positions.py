"""Whether a loader can be read a second time without a trace, and what reading changed put back as it was."""

from __future__ import annotations

import functools
import io
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from inspect import getclosurevars
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from sparse_rnn.isolation import GENERATORS, kept
from sparse_rnn.torch_compat import iterates_as_torch_does

CONTAINERS = (list, tuple, dict, set, frozenset, deque)
FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)
# What a container holds is much alike: a data set of a million samples is judged by the first of them.
LOOKED_AT = 100
MOST = 10_000  # objects that are looked at
# Arrays up to this size may be counters and cursors; larger ones are data.
SMALL = 10_000
LIBRARIES = (
    "builtins",
    "logging",
    "torch",
    "lightning",
    "pytorch_lightning",
    "numpy",
    "pandas",
    "collections",
    "abc",
    "typing",
)


def can_be_read_twice(loader: Any) -> bool:
    """Tell whether a loader gives the same to a second reader, and the first does not notice.

    That is so of a DataLoader that iterates a map-style data set as PyTorch does, by samplers of PyTorch's, where
    nothing that it reads from has a position of its own: no iterator, no open file or connection. A loader of another
    class says so itself, by an attribute ``passes_are_independent`` that is True.

    Example:
        >>> can_be_read_twice(DataLoader([1, 2])), can_be_read_twice(iter([1, 2]))
        (True, False)
        >>> class Numbers:
        ...     source = iter(range(10))
        ...
        ...     def __getitem__(self, index):
        ...         return next(self.source)
        ...
        ...     def __len__(self):
        ...         return 10
        >>> can_be_read_twice(DataLoader(Numbers()))
        False
    """
    if getattr(loader, "passes_are_independent", False) is True:
        return True
    return (
        iterates_as_torch_does(loader)
        and not isinstance(loader.dataset, IterableDataset)
        and all(_is_torchs(sampler) for sampler in _samplers(loader))
        and not any(_has_a_position(value) for value in _reached(_read_from(loader)))
    )


@contextmanager
def put_back(loaders: Iterable[Any]) -> Iterator[None]:
    """Put back on exit what reading changes in what loaders read from: attributes, containers, random generators."""
    found = list(_reached([value for loader in loaders for value in _read_from(loader)]))
    generators = [value for value in found if isinstance(value, GENERATORS)]
    restorers = [restore for value in found if (restore := _restorer(value)) is not None]
    try:
        with kept(generators):
            yield
    finally:
        for restore in restorers:
            restore()


def _samplers(loader: Any) -> list[Any]:
    samplers = [loader.sampler, loader.batch_sampler]
    return [part for sampler in samplers for part in (sampler, getattr(sampler, "sampler", None)) if part is not None]


def _is_torchs(sampler: Any) -> bool:
    """Tell whether it is a sampler of PyTorch's, or nothing but indices."""
    return isinstance(sampler, (list, tuple, range, Tensor)) or type(sampler).__module__.startswith("torch.utils.data")


def _read_from(loader: Any) -> list[Any]:
    """List what a DataLoader reads from; of others it is theirs to know.

    What begins with an underscore is its iterator, which is not read from, and what Lightning has noted about it.
    """
    if not isinstance(loader, DataLoader):
        return []
    return [value for name, value in vars(loader).items() if not name.startswith("_")]


def _has_a_position(value: Any) -> bool:
    """Tell whether something moves on when it is read, and cannot go back for us."""
    if isinstance(value, io.IOBase):
        return value not in (sys.stdout, sys.stderr) and (value.closed or value.readable())
    return isinstance(value, Iterator) or any(hasattr(type(value), name) for name in ("readline", "recv"))


def _reached(roots: Iterable[Any]) -> Iterator[Any]:
    """Yield everything that can change and be reached from some objects, each once."""
    waiting = deque(roots)
    seen: set[int] = set()
    alive = []  # an object that is gone could leave its id to another one
    while waiting and len(seen) < MOST:
        value = waiting.popleft()
        if id(value) in seen or isinstance(value, (str, bytes, int, float, type, types.ModuleType)) or value is None:
            continue
        seen.add(id(value))
        alive.append(value)
        yield value
        if not _has_a_position(value):
            waiting.extend(_parts(value))


def _parts(value: Any) -> list[Any]:
    """List what an object is made of, as far as it may have a position or a state."""
    if isinstance(value, (Tensor, np.ndarray, nn.Module, *GENERATORS)) or _is_foreign(value):
        return []
    if isinstance(value, Mapping):
        with suppress(Exception):  # its own: a config may have values that cannot be asked for
            return list(islice(value.values(), LOOKED_AT))
        return []
    if isinstance(value, CONTAINERS):
        return list(islice(value, LOOKED_AT))
    if isinstance(value, FUNCTIONS):
        return _parts_of_function(value)
    return [*getattr(value, "__dict__", {}).values(), *_parts_of_class(type(value))]


def _is_foreign(value: Any) -> bool:
    """Tell whether it is a logger, or a part of Lightning: a data module, whose method may collate, has a trainer."""
    return type(value).__module__.partition(".")[0] in ("lightning", "pytorch_lightning", "logging")


def _parts_of_function(function: Any) -> list[Any]:
    if isinstance(function, functools.partial):
        return [function.func, *function.args, *function.keywords.values()]
    if isinstance(function, types.MethodType):
        return [function.__self__, function.__func__]
    found = getclosurevars(function)
    return [*found.nonlocals.values(), *(value for value in found.globals.values() if _has_a_position(value))]


def _parts_of_class(kind: type) -> list[Any]:
    """List the methods of a class of the project's, and what it holds for all its objects."""
    own = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in LIBRARIES]
    values = [value for base in own for value in vars(base).values()]
    return [value for value in values if isinstance(value, types.FunctionType) or _has_a_position(value)]


def _restorer(value: Any) -> Callable[[], None] | None:
    """Return a function that puts back what an object holds now; None where there is nothing to put back."""
    if isinstance(value, (Tensor, np.ndarray)):
        return _array_restorer(value) if _is_small(value) else None
    if isinstance(value, (list, dict, set, deque)):
        return _container_restorer(value)
    if isinstance(value, (*FUNCTIONS, nn.Module, *GENERATORS)) or _is_foreign(value):
        return None
    return _attribute_restorer(value) if hasattr(value, "__dict__") else None


def _is_small(array: Any) -> bool:
    if isinstance(array, Tensor):
        return array.numel() <= SMALL and array.layout == torch.strided
    return array.size <= SMALL and array.dtype.kind in "biufc"


def _array_restorer(array: Any) -> Callable[[], None]:
    before = array.detach().clone() if isinstance(array, Tensor) else array.copy()

    def restore() -> None:
        now = array.detach() if isinstance(array, Tensor) else array
        if not bool((now == before).all()):
            now[...] = before

    return restore


def _container_restorer(container: Any) -> Callable[[], None]:
    before = container.copy()

    def restore() -> None:
        if not _same_items(container, before):
            container.clear()
            (container.update if isinstance(container, (dict, set)) else container.extend)(before)

    return restore


def _same_items(now: Any, before: Any) -> bool:
    if len(now) != len(before):
        return False
    if isinstance(now, dict):
        return all(key in now and now[key] is value for key, value in before.items())
    if isinstance(now, set):
        return now == before
    return all(a is b for a, b in zip(now, before, strict=True))


def _attribute_restorer(value: Any) -> Callable[[], None]:
    own = vars(value)
    before = dict(own)

    def restore() -> None:
        if not _same_items(own, before):
            own.clear()
            own.update(before)

    return restore
