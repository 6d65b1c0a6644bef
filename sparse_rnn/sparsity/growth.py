"""Dynamic sparsity: weights that matter little make room for others, their number staying the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparse_rnn.checks import check_number, check_whole
from sparse_rnn.errors import UsageError
from sparse_rnn.sparsity.ranking import best


def drop_and_grow(mask: Tensor, worth: Tensor, growth: Tensor, share: float, parts: int = 1) -> Tensor:
    """Drop some of the weights that are kept and grow as many of the others.

    A weight that is dropped competes with the removed ones for its place, as in the code of RigL and of Selfish-RNN.

    Args:
        mask: True = kept, any shape.
        worth: A score for each weight, of the same shape; the smallest are dropped, infinite ones never.
        growth: Another; the largest are grown.
        share: Share of the kept weights to drop, in [0, 1]; the number is rounded down.
        parts: Number of parts of equally many rows, such as gates, each of which keeps its number of weights.

    Returns:
        The new mask. Each part keeps as many weights as before; ties go to the earlier weight.

    Example:
        >>> kept = torch.tensor([True, True, False, False])
        >>> drop_and_grow(kept, torch.tensor([0.1, 0.9, 0, 0]), torch.tensor([0, 0, 0.2, 0.8]), share=0.5)
        tensor([False,  True, False,  True])
    """
    check_number("share", share, "[0, 1]", "the share of the kept weights to drop")
    check_whole("parts", parts, 1)
    if len(mask) % parts:
        raise UsageError(f"parts={parts}: {len(mask)} rows have no so many equal parts; give a divisor of {len(mask)}.")
    rows = zip(mask.chunk(parts), worth.chunk(parts), growth.chunk(parts), strict=True)
    return torch.cat([_drop_and_grow(*part, share) for part in rows])


def _drop_and_grow(mask: Tensor, worth: Tensor, growth: Tensor, share: float) -> Tensor:
    kept = worth[mask]
    moved = min(int(share * len(kept)), int(kept.isfinite().count_nonzero()))
    new = mask.clone()
    new[mask] = best(kept, len(kept) - moved)
    # Masked, not selected: gathering all but a few of millions takes longer than ranking them.
    candidates = growth.masked_fill(new, -torch.inf).flatten()
    return new | best(candidates, moved).view_as(mask)


def random_scores(like: Tensor, *entropy: int) -> Tensor:
    """Draw uniform numbers in [0, 1) of a tensor's shape and device, float32.

    They depend on the whole numbers ``entropy`` (at least 0) alone: neither on the device nor on what was drawn before.

    Example:
        >>> torch.equal(random_scores(torch.zeros(3), 0, 100), random_scores(torch.zeros(3), 0, 100))
        True
    """
    for number in entropy:
        check_whole("entropy", number, most=2**64 - 1)
    # A seed sequence, because a generator seeded with neighbouring numbers, or with their sum, repeats itself.
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.rand(like.shape, generator=generator, device="cpu", dtype=torch.float32).to(like.device)
