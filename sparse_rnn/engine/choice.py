"""Whether a module is faster over its kept weights or as a dense one.

What both take is estimated: so much for each weight that is gone through, for each number that a gate is computed for,
and for each step. What each of these costs was measured once, over densities, sizes and batches
(``benchmarks/engine.py grid``). A measurement in the run itself would choose by chance where both are close, and the
same run would not give the same bits twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Sequences that share a weight.
_WIDEST = 32
# Weights that a cache may hold.
CACHED = 8_000_000


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
        far_weight: Of a weight that finds no place in the cache, in addition.
        product: Of a weight, for each sequence.
        gate: Of a pre-activation of a sequence.
        sequence: Of a sequence.
        step: Of the rest.
    """

    weight: float
    far_weight: float
    product: float
    gate: float
    sequence: float
    step: float

    def __call__(self, size: Size, batch: int) -> float:
        far = max(size.total - CACHED, 0)
        weights = size.total * (self.weight + self.product * batch) + far * self.far_weight
        return weights + batch * (self.gate * size.gated + self.sequence) + self.step


@dataclass(frozen=True)
class _Sparse:
    """Nanoseconds of a step over kept weights, on two threads.

    Attributes:
        tile: Of a kept weight, for each tile of sequences.
        lane: Of a kept weight, for each sequence.
        gate: Of a pre-activation of a sequence.
        step: Of the rest.
    """

    tile: float
    lane: float
    gate: float
    step: float

    def __call__(self, size: Size, batch: int) -> float:
        weights = size.kept * (self.tile * tiles(batch) + self.lane * batch)
        return weights + self.gate * size.gated * batch + self.step


# Of inference, and of a forward pass with a backward one; "python benchmarks/engine.py costs" prints them. An LSTM of
# torch's is computed by oneDNN, other cells by torch itself, which is slower.
COSTS = {
    ("lstm", False): (_Dense(0.042, 0.23, 0.0097, 1.11, 0, 17_400), _Sparse(0.215, 0.0141, 0.94, 15_600)),
    ("lstm", True): (_Dense(0.187, 0.74, 0.0240, 4.93, 379, 48_800), _Sparse(0.932, 0.0264, 4.35, 99_900)),
    ("gru", False): (_Dense(0.072, 0.11, 0.0140, 2.10, 0, 17_000), _Sparse(0.214, 0.0156, 0.87, 14_300)),
    ("gru", True): (_Dense(0.638, 1.25, 0.0219, 9.22, 0, 100_900), _Sparse(1.049, 0.0249, 4.41, 108_200)),
}


def tiles(batch: int) -> int:
    """Return how many tiles a batch is cut into.

    Example:
        >>> tiles(1), tiles(32), tiles(33)
        (1, 1, 2)
    """
    return -(-batch // _WIDEST)


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
    costs = COSTS["lstm" if cell == "lstm" else "gru", training]
    dense, sparse = (sum(cost(size, batch) for size in layers) for cost in costs)
    density = sum(size.kept for size in layers) / sum(size.total for size in layers)
    purpose = "training" if training else "inference"
    return Choice(
        sparse < dense,
        f"at a density of {density:.1%} and a batch of {batch}, a dense step takes about {dense / sparse:.1f} times as "
        f"long as a sparse one ({purpose})",
    )
