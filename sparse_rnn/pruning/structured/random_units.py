"""Random units: what every criterion for units has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_rnn.checks import check_seed
from sparse_rnn.pruning.structured.groups import UnitGroup
from sparse_rnn.pruning.structured.moments import Moments
from sparse_rnn.pruning.structured.unit_criterion import UnitCriterion


@dataclass(frozen=True)
class RandomUnits(UnitCriterion):
    """Keep units that are drawn by lot.

    Args:
        units: See :class:`UnitCriterion`.
        reconstruct: See :class:`UnitCriterion`.
        regularisation: See :class:`UnitCriterion`.
        seed: Seed of the draw; each layer has one of its own.

    Example:
        >>> from torch import nn
        >>> rnn, x = nn.GRU(3, 6), torch.randn(9, 2, 3)
        >>> plan = RandomUnits(units=2, reconstruct=False).plan(rnn, x, readers={"GRU": []})
        >>> len(plan["l0"].kept)
        2
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)

    def choose(self, group: UnitGroup, count: int, moments: Moments) -> Tensor:
        """See :meth:`UnitCriterion.choose`."""
        generator = torch.Generator("cpu").manual_seed(self.seed)
        for byte in "".join(group.layers).encode():
            generator.manual_seed((generator.initial_seed() * 257 + byte) % 2**62)
        return torch.randperm(group.units, generator=generator, device="cpu")[:count]
