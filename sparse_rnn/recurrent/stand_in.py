"""Stands in for the forward of some modules, at their class, while a model runs.

A subclass may do something before and after ``super().forward``, such as packing what it is given. A function that is
put in the place of the registered class's forward, and asks which instance is called, lets it do so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from threading import RLock
from typing import Any

from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.process_settings import eager
from sparse_rnn.recurrent.layers import RecurrentModule
from sparse_rnn.torch_compat import own_attribute_set

Forward = Callable[..., Any]


class _Dispatch:
    """Takes the place of a class's forward as long as there is an instance that something stands in for."""

    def __init__(self, kind: type[nn.Module]) -> None:
        self.before: Forward = kind.forward
        self.stand_ins: dict[int, list[Forward]] = {}
        self._kind = kind
        self._placed = ExitStack()

    def place(self) -> None:
        @wraps(self.before)
        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            waiting = self.stand_ins.get(id(module))
            return waiting[-1](*args, **kwargs) if waiting else self.before(module, *args, **kwargs)

        self._placed.enter_context(own_attribute_set(self._kind, "forward", forward))

    def remove(self) -> None:
        self._placed.close()


_DISPATCHED: dict[type[nn.Module], _Dispatch] = {}
_LOCK = RLock()


def forward_of(kind: type[nn.Module]) -> Forward:
    """Return the forward that a class has when nothing stands in for it."""
    dispatch = _DISPATCHED.get(kind)
    return kind.forward if dispatch is None else dispatch.before


@contextmanager
def forward_replaced(module: nn.Module, kind: type[nn.Module], stand_in: Forward) -> Iterator[None]:
    """Let ``kind.forward`` be another function for one module, and what it was for all others.

    It may be used several times, one inside the other or in several threads: the class gets its forward back with the
    last of them. A forward that somebody has assigned to the module itself is replaced there.

    Args:
        module: The module.
        kind: Its class, or a base class of it.
        stand_in: Gets the arguments of ``module.forward``, without the module.
    """
    if "forward" in vars(module):
        with own_attribute_set(module, "forward", stand_in):
            yield
        return
    with _LOCK:
        dispatch = _DISPATCHED.get(kind)
        if dispatch is None:
            dispatch = _DISPATCHED[kind] = _Dispatch(kind)
            dispatch.place()
        dispatch.stand_ins.setdefault(id(module), []).append(stand_in)
    try:
        yield
    finally:
        with _LOCK:
            waiting = dispatch.stand_ins[id(module)]
            waiting.remove(stand_in)
            if not waiting:
                del dispatch.stand_ins[id(module)]
            if not dispatch.stand_ins:
                dispatch.remove()
                del _DISPATCHED[kind]


@contextmanager
def forwards_replaced(stand_ins: Iterable[tuple[RecurrentModule, Forward]]) -> Iterator[None]:
    """Let functions stand in for the forwards of recurrent modules; compiled models run as they were written.

    Raises:
        UsageError: If a module was called, and its class has a forward of its own that did not call the registered one.
    """
    with ExitStack() as stack:
        stack.enter_context(eager())
        watched = [stack.enter_context(_replaced(found, stand_in)) for found, stand_in in stand_ins]
        try:
            yield
        except RuntimeError as error:  # what it calls instead may fail in another way first
            _check_reached(watched, error)
            raise
        _check_reached(watched)


class _Watched:
    """Whether a module was called, and whether that came to what stands in for its forward."""

    def __init__(self, found: RecurrentModule) -> None:
        self.found = found
        self.called = self.reached = False

    def note_call(self, *_: Any) -> None:
        self.called = True


@contextmanager
def _replaced(found: RecurrentModule, stand_in: Forward) -> Iterator[_Watched]:
    watched = _Watched(found)

    def forward(*args: Any, **kwargs: Any) -> Any:
        watched.reached = True
        return stand_in(*args, **kwargs)

    handle = found.module.register_forward_pre_hook(watched.note_call) if found.has_own_forward else None
    try:
        with forward_replaced(found.module, found.entry.kind, forward):
            yield watched
    finally:
        if handle is not None:
            handle.remove()


def _check_reached(watched: Sequence[_Watched], error: Exception | None = None) -> None:
    for found in (one.found for one in watched if one.called and not one.reached):
        own, known = type(found.module).__name__, found.entry.kind.__name__
        raise UsageError(
            f"{own} has a forward of its own that does not call {known}'s (super().forward), so the steps of "
            f"{found.label!r} are not known: let it call that, give {own} and its equations to register_cell, or take "
            "a criterion that needs no data, such as Magnitude."
        ) from error
