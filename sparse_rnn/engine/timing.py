"""Recurrent layers timed as dense ones and over their kept weights, in turn, on the machine at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from sparse_rnn.engine.layers import SparseLayer

LEAST = 5


@dataclass(frozen=True)
class Timing:
    """A layer at a batch size.

    Attributes:
        name: The layer's name in its model.
        batch: Number of sequences.
        dense: Milliseconds of a step of the dense layer, the median.
        sparse: The same of the sparse one.
        ratio: How many times as long the dense one takes: the median of the ratios of runs that stood side by side.
        dense_bytes: Bytes of the dense layer's weights and biases.
        sparse_bytes: Bytes of what the sparse layer holds.
        read_bytes: Bytes of that which a step reads.
        error: The largest difference of an output.
    """

    name: str
    batch: int
    dense: float
    sparse: float
    ratio: float
    dense_bytes: int
    sparse_bytes: int
    read_bytes: int
    error: float

    @property
    def bandwidth(self) -> float:
        """GB/s at which the sparse layer goes through its weights, once a step."""
        return self.read_bytes / self.sparse / 1e6


def side_by_side(
    first: Callable[[], object], second: Callable[[], object], seconds: float
) -> tuple[float, float, float]:
    """Time two functions in turn.

    Args:
        first: The one.
        second: The other.
        seconds: How long to go on; each runs five times at least, and once before that.

    Returns:
        Their medians in milliseconds, and the median ratio of the first to the second.

    Example:
        >>> slow, fast, ratio = side_by_side(lambda: time.sleep(0.01), lambda: None, seconds=0)
        >>> ratio > 1
        True
    """
    first(), second()
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST or time.perf_counter() < end:
        times.append((_seconds(first), _seconds(second)))
    ones, others = zip(*times, strict=True)
    return 1000 * median(ones), 1000 * median(others), median(a / b for a, b in times)


def time_layers(
    dense: nn.Module, sparse: nn.Module, batches: Sequence[int], steps: int, seconds: float
) -> Iterator[Timing]:
    """Time the sparse layers of a model, without gradients, on random inputs.

    Args:
        dense: The model.
        sparse: What :func:`sparse_rnn.engine.compact` made of it.
        batches: Batch sizes.
        steps: Number of steps of a sequence.
        seconds: How long to time each of them.
    """
    for name, small in sparse.named_modules():
        if isinstance(small, SparseLayer):
            layer = dense.get_submodule(name)
            for batch in batches:
                yield _timed(name or type(layer).__name__, layer, small, batch, steps, seconds)


def _timed(name: str, layer: nn.Module, small: SparseLayer, batch: int, steps: int, seconds: float) -> Timing:
    shape = (batch, steps) if small.batch_first else (steps, batch)
    x = torch.randn(*shape, small.input_size, dtype=small.real)
    with torch.inference_mode():
        ours, theirs, ratio = side_by_side(lambda: layer(x), lambda: small(x), seconds)
        error = _difference(layer(x)[0], small(x)[0])
    held = sum(parameter.nbytes for parameter in layer.parameters())
    sizes = held, small.nbytes, small.bytes_read(batch)
    return Timing(name, batch, ours / steps, theirs / steps, ratio, *sizes, error)


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
