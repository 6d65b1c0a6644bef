"""Memory that is used again: fresh pages of the operating system cost as much as the kernels compute with them."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable
from threading import Lock

import numpy as np
import torch
from torch import Tensor

# What is smaller comes from the allocator, which has it at hand.
SMALL = 1 << 20
# Vectors that lie across two lines of the cache are read at half the speed.
LINE = 64


class Pool:
    """Blocks of memory that come back when the last tensor over them is gone, whatever thread asks or lets go.

    Args:
        make: Makes a block of so many bytes.
        idle: How many times memory may be asked for before a block that was not used all that time is given up.

    Example:
        >>> pool = Pool(np.empty)
        >>> tensor = pool.take((1000, 1000), torch.float32)
        >>> where = tensor.data_ptr()
        >>> del tensor
        >>> pool.take((1000, 1000), torch.float32).data_ptr() == where
        True
    """

    def __init__(self, make: Callable[[int, type], np.ndarray], idle: int = 64) -> None:
        self._make = make
        self._idle = idle
        self._free: list[tuple[int, np.ndarray]] = []
        self._time = 0
        self._lock = Lock()
        # A block may come back at any moment, while this thread holds the lock, too.
        self._back: deque[np.ndarray] = deque()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor over a block of the pool, as the block was left."""
        size = math.prod(shape) * dtype.itemsize
        block = self._block(size + LINE)
        start = -block.ctypes.data % LINE
        view = block[start : start + size]
        # The tensor keeps the view, and nothing else does.
        weakref.finalize(view, self._give_back, block)
        return torch.from_numpy(view).view(dtype).view(shape)

    def clear(self) -> None:
        """Give up what nobody uses now."""
        with self._lock:
            self._back.clear()
            self._free = []

    def _block(self, size: int) -> np.ndarray:
        with self._lock:
            self._time += 1
            while self._back:
                self._free.append((self._time, self._back.popleft()))
            self._free = [(last, block) for last, block in self._free if self._time - last <= self._idle]
            fitting = [index for index, (_, block) in enumerate(self._free) if size <= block.nbytes <= 2 * size]
            if fitting:
                return self._free.pop(min(fitting, key=lambda index: self._free[index][1].nbytes))[1]
        return self._make(size, np.uint8)

    def _give_back(self, block: np.ndarray) -> None:
        self._back.append(block)


_scratch = Pool(np.empty)


def scratch(size: int, like: Tensor) -> Tensor:
    """Return a tensor of so many numbers, of another one's type, that nothing is known of."""
    if size * like.element_size() < SMALL:
        return like.new_empty(size)
    return _scratch.take((size,), like.dtype)


def give_up_scratch() -> None:
    """Let the system have the memory that no tensor uses."""
    _scratch.clear()
