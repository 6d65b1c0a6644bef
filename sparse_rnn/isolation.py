"""Isolation: a model is run, or random numbers are drawn, and everything is put back as it was."""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparse_rnn.torch_compat import own_attributes, set_own_attributes, version_of

PutBack = Callable[[], object]
GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)


@contextmanager
def leave_no_trace(model: nn.Module) -> Iterator[None]:
    """Restore on exit what running a model changes in it: attributes, buffers, hidden states, metrics, flags.

    Tensors, containers and random generators keep their identity (their values are put back), so references held
    elsewhere stay true; objects of other classes are put back as they are. Parameters and their gradients are not
    touched: nothing here calls ``backward``, and a training step that changes parameters itself runs under
    :func:`parameters_kept`.
    """
    scripted = [module for module in model.modules() if isinstance(module, torch.jit.ScriptModule)]
    plain = [module for module in model.modules() if module not in scripted]
    before = [(module, type(module), _attributes_snapshot(module)) for module in plain]
    # What scripted modules hold lies elsewhere; their attributes are no more than a way there.
    buffers = _snapshot(buffer for module in scripted for buffer in module.buffers())
    try:
        with _outside_inference_mode():
            yield
    finally:
        same = [put_back for module, kind, put_back in before if type(module) is kind]  # a lazy one becomes another
        _call_all([*chain.from_iterable(same), *buffers])


@contextmanager
def _outside_inference_mode() -> Iterator[None]:
    """Let gradients be had where they are asked for: Lightning evaluates in a mode in which there are none."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():
            yield
    else:
        yield


@contextmanager
def rng_kept() -> Iterator[None]:
    """Give PyTorch's generators, those of all devices, back their state on exit."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield


def random_state() -> list[Any]:
    """Return the state of the global generators of PyTorch, on all devices, of NumPy and of Python."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state(), np.random.get_state(), random.getstate(), devices]  # noqa: NPY002 - the project's


def set_random_state(state: list[Any]) -> None:
    """Give the global generators a state that :func:`random_state` returned."""
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])  # noqa: NPY002 - the project's
    random.setstate(state[2])
    if state[3]:
        torch.cuda.set_rng_state_all(state[3])


@contextmanager
def all_rng_kept() -> Iterator[None]:
    """Give the global generators of PyTorch, on all devices, of NumPy and of Python back their state on exit.

    Unlike Lightning's ``isolate_rng`` it does so where something fails inside, too.

    Example:
        >>> import random
        >>> random.seed(3)
        >>> with all_rng_kept():
        ...     first = random.random()
        >>> random.random() == first
        True
    """
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)


class OwnRandomness:
    """Random numbers for something that is done piece by piece, beside a project's own.

    Inside it, the global generators go on where the last piece left them; outside they are as if it had never been.

    Args:
        seed: Seeds PyTorch's generators, or with ``everywhere`` those of NumPy and Python too, which go on from where
            they are otherwise.
        everywhere: See ``seed``.

    Example:
        >>> own = OwnRandomness(3)
        >>> with own.inside():
        ...     first = torch.rand(2)
        >>> with own.inside():
        ...     second = torch.rand(2)
        >>> with seeded(3):
        ...     bool((torch.rand(4) == torch.cat([first, second])).all())
        True
    """

    def __init__(self, seed: int, everywhere: bool = False) -> None:
        self._state = random_state()
        with self.inside():
            torch.manual_seed(seed)
            if everywhere:
                np.random.seed(seed % 2**32)  # noqa: NPY002 - the project's
                random.seed(seed)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Have the global generators go on where they stopped in here."""
        with all_rng_kept():
            set_random_state(self._state)
            try:
                yield
            finally:
                self._state = random_state()


def mixed_with_the_random_state(seed: int) -> int:
    """Return a seed that depends on a seed and on the state of the global generators, which stays as it is.

    Numbers that are drawn from it are neither those that will be drawn outside nor the same whatever the project's own
    seed is.
    """
    torchs, (_, numpys, *more), pythons, _ = random_state()
    digest = hashlib.blake2b(torchs.numpy().tobytes() + numpys.tobytes(), digest_size=7)
    digest.update(repr((seed, more, pythons)).encode())
    return int.from_bytes(digest.digest(), "big")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's generators inside, and give them back their state on exit.

    Example:
        >>> with seeded(3):
        ...     first = torch.rand(2)
        >>> with seeded(3):
        ...     bool((torch.rand(2) == first).all())
        True
    """
    with rng_kept():
        torch.manual_seed(seed)
        yield


@contextmanager
def parameters_kept(model: nn.Module) -> Iterator[None]:
    """Put back on exit the values, the gradients and the ``requires_grad`` flags of a model's parameters.

    A graph that was recorded inside stays valid: the values it was recorded with are back, and autograd sees no change.
    """
    before = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    with kept([value for parameter, gradient, _ in before for value in (parameter.data, gradient)]):
        try:
            yield
        finally:
            for parameter, gradient, flag in before:
                parameter.grad = gradient
                parameter.requires_grad_(flag)


@contextmanager
def kept(values: Iterable[Any]) -> Iterator[None]:
    """Put back on exit what tensors, containers and random generators hold, and what is held by what they hold."""
    put_back = _snapshot(values)
    try:
        yield
    finally:
        _call_all(put_back)


def _call_all(functions: Iterable[PutBack]) -> None:
    with torch.no_grad(), ExitStack() as stack:  # which goes on where one fails
        for function in functions:
            stack.callback(function)


def _attributes_snapshot(module: nn.Module) -> list[PutBack]:
    attributes = dict(own_attributes(module))
    return [*_snapshot(attributes.values()), partial(set_own_attributes, module, attributes)]


def _snapshot(values: Iterable[Any]) -> list[PutBack]:
    """Return what puts each of some objects back as it is now, each once, however often and wherever it is held."""
    known: dict[int, Any] = {}
    found: list[PutBack] = []
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if id(value) in known:
            continue
        known[id(value)] = value  # alive, so that no other object gets its number meanwhile
        if type(value) is Tensor:
            found.append(_of_tensor(value))
        elif isinstance(value, GENERATORS):
            with suppress(NotImplementedError):  # one of the system has no state
                found.append(_of_generator(value))
        elif isinstance(value, (dict, list, deque, set)):
            held, put_back = _of_container(value)
            found.append(put_back)
            waiting += held
        elif isinstance(value, tuple):
            waiting += value
    return found


def _of_tensor(value: Tensor) -> PutBack:
    copy, version = value.detach().clone(), version_of(value)

    def is_changed() -> bool:
        if version_of(value) != version or value.shape != copy.shape:
            return True
        try:
            return not torch.equal(value, copy)  # what changes value.data does not count as a version
        except (NotImplementedError, RuntimeError):  # it does not know every layout
            return False

    def put_back() -> None:
        if is_changed():
            if value.shape != copy.shape:
                value.resize_(copy.shape)
            value.copy_(copy)

    return put_back


def _of_generator(value: Any) -> PutBack:
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    if isinstance(value, np.random.RandomState):
        return partial(value.set_state, value.get_state())
    return partial(setattr, value.bit_generator, "state", value.bit_generator.state)


def _of_container(value: Any) -> tuple[list[Any], PutBack]:
    """Return what a container holds, and what puts that back.

    Both go past what a class of somebody's own makes of the methods: a ``Counter`` counts what it is updated with.
    """
    kind: Any = next(base for base in (OrderedDict, dict, list, deque, set) if isinstance(value, base))
    held = _contents(kind, value)

    def put_back() -> None:
        if [*map(id, _contents(kind, value))] == [*map(id, held)]:
            return
        kind.clear(value)
        if issubclass(kind, dict):
            for key, item in zip(held[::2], held[1::2], strict=True):
                kind.__setitem__(value, key, item)
        elif kind is set:
            kind.update(value, held)
        else:
            kind.extend(value, held)

    return held, put_back


def _contents(kind: Any, value: Any) -> list[Any]:
    """List what a container holds, a dictionary's keys each before its value."""
    return list(chain.from_iterable(kind.items(value)) if issubclass(kind, dict) else kind.__iter__(value))
