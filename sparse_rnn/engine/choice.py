"""Whether a module is faster over its kept weights or as a dense one.

What both take is estimated: so much for each weight that is gone through, for each number that a gate is computed for,
and for each step. What each of these costs was measured once, over densities, sizes and batches
(``benchmarks/engine.py grid``). A measurement in the run itself would choose by chance where both are close, and the
same run would not give the same bits twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Sequences that share a weight; narrower tiles cost less.
_WIDEST = 32


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
class _Costs:
    """Nanoseconds of a step on two threads.

    Attributes:
        dense_weight: Of a dense weight, whatever the batch.
        dense_product: Of a dense weight, for each sequence.
        dense_gate: Of a pre-activation of a sequence.
        dense_step: Of the rest.
        kept_tile: Of a kept weight, for each tile of sequences.
        kept_lane: Of a kept weight, for each lane of a tile.
        gate: Of a pre-activation of a sequence.
        step: Of the rest.
    """

    dense_weight: float
    dense_product: float
    dense_gate: float
    dense_step: float
    kept_tile: float
    kept_lane: float
    gate: float
    step: float

    def dense(self, size: Size, batch: int) -> float:
        """Estimate a step of the dense layer."""
        weights = size.total * (self.dense_weight + self.dense_product * batch)
        return weights + self.dense_gate * size.gated * batch + self.dense_step

    def sparse(self, size: Size, batch: int) -> float:
        """Estimate a step over the kept weights."""
        weights = size.kept * (self.kept_tile * tiles(batch) + self.kept_lane * batch)
        return weights + self.gate * size.gated * batch + self.step


INFERENCE = _Costs(0.2, 0.025, 2.0, 1000.0, 0.5, 0.03, 2.0, 2000.0)
TRAINING = _Costs(0.5, 0.055, 5.0, 5000.0, 3.0, 0.1, 6.0, 10_000.0)


def tiles(batch: int) -> int:
    """Return how many tiles a batch is cut into.

    Example:
        >>> tiles(1), tiles(32), tiles(33)
        (1, 1, 2)
    """
    return -(-batch // _WIDEST)


def choose(layers: Sequence[Size], batch: int, training: bool) -> Choice:
    """Choose how a module computes.

    Args:
        layers: Its layers and directions.
        batch: Number of sequences.
        training: Whether gradients are computed.

    Example:
        >>> choose([Size(total=100_000, kept=5_000, gated=400)], batch=64, training=True).sparse
        True
    """
    costs = TRAINING if training else INFERENCE
    dense, sparse = (sum(cost(size, batch) for size in layers) for cost in (costs.dense, costs.sparse))
    density = sum(size.kept for size in layers) / sum(size.total for size in layers)
    purpose = "training" if training else "inference"
    return Choice(
        sparse < dense,
        f"at a density of {density:.1%} and a batch of {batch}, a dense step takes about {dense / sparse:.1f} times as "
        f"long as a sparse one ({purpose})",
    )
