"""Isolation: a model is run, or random numbers are drawn, and everything is put back as it was."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparse_rnn.torch_compat import own_attributes, set_own_attributes

Restore = Callable[[], Any]
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
    before = [(module, type(module), _restorers(own_attributes(module).items())) for module in plain]
    # What scripted modules hold lies elsewhere; their attributes are no more than a way there.
    buffers = [_restorer(buffer) for module in scripted for buffer in module.buffers()]
    try:
        with _outside_inference_mode():
            yield
    finally:
        with torch.no_grad():
            for module, kind, restorers in before:
                if type(module) is kind:  # a lazy module has become another one
                    set_own_attributes(module, {k: restore() for k, restore in restorers})
            for restore in buffers:
                restore()


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
    before = [(p, _tensor_restorer(p.data), _restorer(p.grad), p.requires_grad) for p in model.parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, restore, restore_gradient, flag in before:
                restore()
                parameter.grad = restore_gradient()
                parameter.requires_grad_(flag)


@contextmanager
def kept(values: Iterable[Any]) -> Iterator[None]:
    """Put back on exit what tensors, containers and random generators hold."""
    restorers = [_restorer(value) for value in values]
    try:
        yield
    finally:
        with torch.no_grad():
            for restore in restorers:
                restore()


def _restorer(value: Any) -> Restore:
    """Return a function that puts back what a value holds now, and returns the value."""
    if type(value) is Tensor:
        return _tensor_restorer(value)
    if isinstance(value, GENERATORS):
        return _generator_restorer(value)
    if isinstance(value, (dict, list, deque, set)):
        return _container_restorer(value)
    if isinstance(value, tuple):
        items = _restorers(enumerate(value))
        return _and_return(value, lambda items: [restore() for _, restore in items], items)
    return lambda: value


def _restorers(items: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Restore]]:
    return [(key, _restorer(value)) for key, value in items]


def _and_return(value: Any, put_back: Callable[[Any], Any], state: Any) -> Restore:
    def restore() -> Any:
        put_back(state)
        return value

    return restore


def _tensor_restorer(value: Tensor) -> Restore:
    def put_back(copy: Tensor) -> None:
        if value.is_sparse or not torch.equal(value, copy):  # equal knows no sparse tensors
            value.copy_(copy)

    return _and_return(value, put_back, value.detach().clone())


def _generator_restorer(value: Any) -> Restore:
    if isinstance(value, torch.Generator):
        return _and_return(value, value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return _and_return(value, value.setstate, value.getstate())
    if isinstance(value, np.random.RandomState):
        return _and_return(value, value.set_state, value.get_state())
    return _and_return(value, lambda state: setattr(value.bit_generator, "state", state), value.bit_generator.state)


def _container_restorer(value: Any) -> Restore:
    items = _restorers(value.items() if isinstance(value, dict) else enumerate(value))

    def put_back(items: list[tuple[Any, Restore]]) -> None:
        before = [(key, restore()) for key, restore in items]
        value.clear()
        if isinstance(value, (list, deque)):
            value.extend(item for _, item in before)
        else:
            value.update(before if isinstance(value, dict) else [item for _, item in before])

    return _and_return(value, put_back, items)
