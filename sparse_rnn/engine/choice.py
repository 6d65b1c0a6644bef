"""Whether a module is faster over its kept weights or as a dense one.

What both take is estimated: so much for each weight that is gone through, for each number that a gate is computed for,
and for each step. What each of these costs was measured once, over densities, sizes and batches
(``benchmarks/engine.py grid``). A measurement in the run itself would choose by chance where both are close, and the
same run would not give the same bits twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparse_rnn.engine.library import WIDEST

# Weights that the second and the third level of a cache may hold.
SECOND_LEVEL, THIRD_LEVEL = 500_000, 5_000_000


@dataclass(frozen=True)
class Size:
    """What of a layer in one direction says how long a step of it takes.

    Attributes:
        total: Number of weights of its kernels.
        kept: Number of those that are kept.
        gated: Number of pre-activations of a sequence.
    """

    total: int
    kept: int
    gated: int


@dataclass(frozen=True)
class Choice:
    """How a module computes, and why."""

    sparse: bool
    why: str


@dataclass(frozen=True)
class _Dense:
    """Nanoseconds of a step of a dense layer, on two threads.

    Attributes:
        weight: Of a weight, whatever the batch.
        far: Of a weight that the second level of the cache does not hold, in addition.
        farther: Of a weight that the third level does not hold either, in addition.
        product: Of a weight, for each sequence.
        gate: Of a pre-activation of a sequence.
        sequence: Of a sequence.
        step: Of the rest.
    """

    weight: float
    far: float
    farther: float
    product: float
    gate: float
    sequence: float
    step: float

    def __call__(self, size: Size, batch: int) -> float:
        weights = size.total * (self.weight + self.product * batch) + beyond(SECOND_LEVEL, size.total) * self.far
        weights += beyond(THIRD_LEVEL, size.total) * self.farther
        return weights + batch * (self.gate * size.gated + self.sequence) + self.step


@dataclass(frozen=True)
class _Sparse:
    """Nanoseconds of a step over kept weights, on two threads.

    Attributes:
        tile: Of a kept weight, for each tile of sequences.
        far: Of a kept weight that the second level of the cache does not hold, in addition.
        lane: Of a kept weight, for each sequence.
        gate: Of a pre-activation of a sequence.
        step: Of the rest.
    """

    tile: float
    far: float
    lane: float
    gate: float
    step: float

    def __call__(self, size: Size, batch: int) -> float:
        far = beyond(SECOND_LEVEL, size.kept) * self.far
        weights = (size.kept * self.tile + far) * tiles(batch) + size.kept * self.lane * batch
        return weights + self.gate * size.gated * batch + self.step


# By cell, pass (inference, or forwards and backwards) and whether there are several sequences, for one of which both
# ways have kernels of their own; "python benchmarks/engine.py costs" prints them. An LSTM of torch's is computed by
# oneDNN, other cells by torch itself, which is slower.
COSTS = {
    ("lstm", False, False): (_Dense(0.00693, 0, 0.206, 0, 30.9, 0, 9_900), _Sparse(0.186, 0, 0, 14, 17_300)),
    ("lstm", False, True): (
        _Dense(0.0597, 0, 0.208, 0.0097, 0.909, 0, 14_900),
        _Sparse(0.24, 0.119, 0.0137, 1.04, 18_700),
    ),
    ("lstm", True, False): (_Dense(0.0652, 0.189, 0.738, 0, 52.5, 0, 37_700), _Sparse(0.76, 0, 0, 78, 43_800)),
    ("lstm", True, True): (_Dense(0.16, 0.124, 0.613, 0.0283, 2.97, 0, 48_900), _Sparse(1.53, 0, 0.0114, 3.92, 57_000)),
    ("gru", False, False): (_Dense(0.0222, 0.0574, 0.106, 0, 18.9, 0, 15_100), _Sparse(0.161, 0.0344, 0, 11.6, 15_600)),
    ("gru", False, True): (
        _Dense(0.109, 0.00273, 0.187, 0.0114, 1.84, 0, 20_200),
        _Sparse(0.243, 0.179, 0.00964, 1.03, 16_800),
    ),
    ("gru", True, False): (_Dense(0.35, 0, 1.48, 0, 62.3, 0, 89_900), _Sparse(0.668, 0.335, 0, 77.4, 45_000)),
    ("gru", True, True): (
        _Dense(0.374, 0.104, 1.15, 0.0248, 7.52, 0, 105_800),
        _Sparse(1.58, 0.106, 0.00239, 3.89, 55_400),
    ),
}


def beyond(level: int, weights: float) -> float:
    """Return how many weights a level of the cache does not hold.

    Example:
        >>> beyond(SECOND_LEVEL, 600_000), beyond(SECOND_LEVEL, 100)
        (100000, 0)
    """
    return max(weights - level, 0)


def tiles(batch: int) -> int:
    """Return how many tiles a batch is cut into.

    Example:
        >>> tiles(1), tiles(32), tiles(33)
        (1, 1, 2)
    """
    return -(-batch // WIDEST)


def choose(cell: str, layers: Sequence[Size], batch: int, training: bool) -> Choice:
    """Choose how a module computes.

    Args:
        cell: Its cell, as :func:`sparse_rnn.engine.ops.layer` has it.
        layers: Its layers and directions.
        batch: Number of sequences.
        training: Whether gradients are computed.

    Example:
        >>> choose("gru", [Size(total=100_000, kept=5_000, gated=400)], batch=64, training=True).sparse
        True
    """
    costs = COSTS["lstm" if cell == "lstm" else "gru", training, batch > 1]
    dense, sparse = (sum(cost(size, batch) for size in layers) for cost in costs)
    density = sum(size.kept for size in layers) / sum(size.total for size in layers)
    purpose = "training" if training else "inference"
    return Choice(
        sparse < dense,
        f"at a density of {density:.1%} and a batch of {batch}, a dense step takes about {dense / sparse:.1f} times as "
        f"long as a sparse one ({purpose})",
    )
