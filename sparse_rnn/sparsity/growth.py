"""Dynamic sparsity: weights that matter little make room for others, their number staying the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparse_rnn.sparsity.ranking import best


def exchange(mask: Tensor, worth: Tensor, growth: Tensor, share: float, parts: int = 1) -> Tensor:
    """Drops some of the weights that are kept and grows as many of the others.

    A weight that is dropped competes with the removed ones for its place, as in the code of RigL and of Selfish-RNN.

    Args:
        mask: True = kept, any shape.
        worth: A score for each weight, of the same shape; the smallest are dropped, infinite ones never.
        growth: Another; the largest are grown.
        share: Share of the kept weights to drop, in [0, 1]; the number is rounded down.
        parts: Number of blocks of rows of equal height, such as gates, each of which keeps its number of weights.

    Returns:
        The new mask. Each block keeps as many weights as before; ties go to the earlier weight.
    """
    blocks = zip(mask.chunk(parts), worth.chunk(parts), growth.chunk(parts), strict=True)
    return torch.cat([_exchange(*block, share) for block in blocks])


def _exchange(mask: Tensor, worth: Tensor, growth: Tensor, share: float) -> Tensor:
    kept = worth[mask]
    moved = min(int(share * len(kept)), int(kept.isfinite().count_nonzero()))
    new = mask.clone()
    new[mask] = best(kept, len(kept) - moved)
    # Masked, not selected: gathering all but a few of millions takes longer than ranking them.
    candidates = growth.masked_fill(new, -torch.inf).flatten()
    return new | best(candidates, moved).view_as(mask)


def random_scores(like: Tensor, *entropy: int) -> Tensor:
    """Uniform numbers in [0, 1) of a tensor's shape and device, float32.

    They depend on the whole numbers ``entropy`` (at least 0) alone: neither on the device nor on what was drawn before.
    """
    # A seed sequence, because a generator seeded with neighbouring numbers, or with their sum, repeats itself.
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)).to(like.device)
