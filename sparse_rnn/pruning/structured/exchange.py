"""Exchanges chosen units for others, as long as the loss falls: what a greedy choice took too early goes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_LEAST = 1e-9  # of the loss,
_ROUNDING = 1e-13  # and of what there is to lose: smaller improvements are rounding errors
_DEPENDENT = 1e-12  # of a unit's second moment: less that the others do not tell is a rounding error


def exchanged(pairs: Sequence[tuple[Tensor, Tensor]], chosen: Tensor, tau: float, exchanges: int) -> Tensor:
    """Exchange one chosen unit for another, the pair that lowers the loss most, at most so many times.

    Leaving unit i out of J raises R by a aᵀ / C_ii, where C = (Σ[J, J] + τ)⁻¹ and a is the column of i in Σ[:, J] C. So
    all exchanges are compared at once in a few matrix products, each of O(m² k).

    Args:
        pairs: Second moments Σ [m, m] and weights Q [m, m]; see :func:`~.greedy.greedy_choice`.
        chosen: The units, J, [k].
        tau: τ, the same for all units.
        exchanges: The largest number of exchanges.

    Returns:
        The units, [k].

    Example:
        >>> import torch
        >>> pairs = [(torch.diag(torch.tensor([1.0, 3.0, 2.0])), torch.eye(3))]
        >>> exchanged(pairs, torch.tensor([0, 1]), tau=0.0, exchanges=5)
        tensor([2, 1])
    """
    chosen = chosen.clone()
    for _ in range(exchanges):
        improvement = None
        least = 0.0
        for moment, weight in pairs:
            compared = _compared(moment.double(), weight.double(), chosen, tau)
            if compared is None:
                return chosen
            improvement = compared[0] if improvement is None else improvement + compared[0]
            least += _LEAST * abs(compared[1]) + _ROUNDING * (weight * moment).sum().item()
        if improvement is None:
            return chosen
        improvement[chosen] = -torch.inf
        best = int(improvement.argmax())
        unit, place = divmod(best, len(chosen))
        if improvement[unit, place] <= least:
            return chosen
        chosen[place] = unit
    return chosen


def _compared(moment: Tensor, weight: Tensor, chosen: Tensor, tau: float) -> tuple[Tensor, float] | None:
    """Return by how much Tr(Q R) falls if each unit, [m], takes the place of each chosen one, [k], and Tr(Q R) itself.

    Returns:
        The improvements [m, k] and the loss; None where chosen units depend on each other, so that nothing is left.
    """
    size = len(chosen)
    inner = moment[chosen][:, chosen] + tau * torch.eye(size, dtype=moment.dtype, device=moment.device)
    factor, failed = torch.linalg.cholesky_ex(inner)
    if failed or (factor.diagonal().square() <= _DEPENDENT * inner.diagonal()).any():
        return None
    inverse = torch.cholesky_inverse(factor)
    matrix = moment[:, chosen] @ inverse
    residual = moment - matrix @ moment[chosen]
    columns = matrix / inverse.diagonal().sqrt()  # each is a / √C_ii
    weighted = weight @ columns
    raised = (columns * weighted).sum(0)
    turned = weight @ residual
    gain = (residual * turned.T).sum(1, keepdim=True)
    gain = gain + 2 * columns * (residual @ weighted) + columns.square() * raised
    left = residual.diagonal().unsqueeze(1) + columns.square()
    dependent = left <= _DEPENDENT * moment.diagonal().unsqueeze(1)
    return torch.where(dependent, 0, gain / (left + tau).clamp(min=1e-300)) - raised, turned.trace().item()
