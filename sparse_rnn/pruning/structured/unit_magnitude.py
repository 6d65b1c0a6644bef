"""Magnitude of units: those with large weights stay."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_rnn.pruning.structured.groups import UnitGroup
from sparse_rnn.pruning.structured.moments import Moments
from sparse_rnn.pruning.structured.unit_criterion import UnitCriterion, best


@dataclass(frozen=True)
class UnitMagnitude(UnitCriterion):
    """Keep the units whose incoming and outgoing weights have the largest sum of squares.

    Incoming are the rows of all gates, outgoing the columns of all that reads the units; a weight from a unit of the
    layer to another counts for both.

    Args:
        units: See :class:`UnitCriterion`.
        reconstruct: See :class:`UnitCriterion`.
        regularisation: See :class:`UnitCriterion`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> rnn, x = nn.RNN(3, 6), torch.randn(9, 2, 3)
        >>> with torch.no_grad():
        ...     _ = rnn.weight_ih_l0[2:4].fill_(5)
        >>> UnitMagnitude(units=2, reconstruct=False).plan(rnn, x, readers={"RNN": []})["l0"].kept
        tensor([2, 3])
    """

    def choose(self, group: UnitGroup, count: int, moments: Moments) -> Tensor:
        """See :meth:`UnitCriterion.choose`."""
        scores = group.incoming().square().sum(1) + group.outgoing().square().sum(0)
        return best(scores, count)
