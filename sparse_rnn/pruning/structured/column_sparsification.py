"""Column sparsification: units whose columns in the recurrent kernels are large stay."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_rnn.pruning.structured.groups import UnitGroup
from sparse_rnn.pruning.structured.moments import Moments
from sparse_rnn.pruning.structured.unit_criterion import UnitCriterion, best


@dataclass(frozen=True)
class ColumnSparsification(UnitCriterion):
    """Keep the units whose columns in the layer's recurrent kernels have the largest norm (Wang et al., 2019).

    What a unit gets, and what it gives to other layers, does not count.

    Args:
        units: See :class:`UnitCriterion`.
        reconstruct: See :class:`UnitCriterion`.
        regularisation: See :class:`UnitCriterion`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> rnn, x = nn.RNN(3, 6), torch.randn(9, 2, 3)
        >>> with torch.no_grad():
        ...     _ = rnn.weight_hh_l0[:, 2:4].fill_(5)
        >>> ColumnSparsification(units=2, reconstruct=False).plan(rnn, x, readers={"RNN": []})["l0"].kept
        tensor([2, 3])
    """

    def choose(self, group: UnitGroup, count: int, moments: Moments) -> Tensor:
        """See :meth:`UnitCriterion.choose`."""
        return best(group.outgoing(recurrent=True).square().sum(0), count)
