"""The greedy choice of units: a Cholesky factorisation that pivots by what a unit would explain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_DEPENDENT = 1e-12  # of its second moment: less is left of a unit that the chosen ones explain, but rounding errors


class _Residual:
    """What the chosen units do not explain of one thing that is read: R = Σ − Σ[:, J] (Σ[J, J] + τ)⁻¹ Σ[J, :].

    R is never formed. With u = R[:, j] / √(R_jj + τ) for each chosen j, it is Σ − U Uᵀ, so a step takes O(m · steps).
    """

    def __init__(self, moment: Tensor, weight: Tensor, tau: float, steps: int) -> None:
        self._moment, self._tau = moment, tau
        self._weighted = weight @ moment  # Q Σ
        self._twice = moment @ self._weighted  # Σ Q Σ
        self._least = _DEPENDENT * moment.diagonal()
        self.left = moment.diagonal().clone()  # the diagonal of R
        self._gain = self._twice.diagonal().clone()  # that of R Q R
        self._u, self._qu, self._squ = (moment.new_zeros(steps, len(moment)) for _ in range(3))  # U, Q U, Σ Q U
        self._taken = 0

    def gains(self) -> Tensor:
        """How much each unit would explain: (R Q R)_jj / (R_jj + τ)."""
        left = self.left.clamp(min=0) + self._tau
        return torch.where(left > self._least, self._gain.clamp(min=0) / left.clamp(min=1e-300), 0)

    def take(self, unit: int) -> None:
        """Let a unit explain what it can."""
        n = self._taken
        before = self._u[:n, unit]
        scale = self.left[unit].clamp(min=0) + self._tau
        if scale <= self._least[unit]:
            return
        scale = scale.sqrt()
        u = (self._moment[unit] - before @ self._u[:n]) / scale
        qu = (self._weighted[:, unit] - before @ self._qu[:n]) / scale
        squ = (self._twice[:, unit] - before @ self._squ[:n]) / scale
        rqu = squ - (self._u[:n] @ qu) @ self._u[:n]
        self._gain -= 2 * u * rqu - u.square() * (u @ qu)
        self.left -= u.square()
        self._u[n], self._qu[n], self._squ[n] = u, qu, squ
        self._taken += 1


def greedy_choice(pairs: Sequence[tuple[Tensor, Tensor]], units: int, tau: float) -> Tensor:
    """Choose units one by one, each the one that lowers the sum of Tr(Q R) over pairs (Σ, Q) most.

    It takes O(m · k) for each of the k units after a few products of m × m matrices, m units in all.

    Args:
        pairs: Second moments Σ [m, m] and what their residuals are weighted by, Q [m, m]: WᵀW of what is read by W.
        units: How many to choose, k.
        tau: τ, the same for all units.

    Returns:
        The units, [k], in the order in which they were chosen.

    Example:
        >>> import torch
        >>> greedy_choice([(torch.diag(torch.tensor([1.0, 3.0, 2.0])), torch.eye(3))], 2, tau=0.0)
        tensor([1, 2])
    """
    residuals = [_Residual(moment.double(), weight.double(), tau, units) for moment, weight in pairs]
    chosen: list[int] = []
    free = torch.ones(len(pairs[0][0]), dtype=torch.bool, device=pairs[0][0].device)
    for _ in range(units):
        gains = sum((residual.gains() for residual in residuals[1:]), residuals[0].gains())
        unit = int(gains.where(free, -1).argmax())
        for residual in residuals:
            residual.take(unit)
        free[unit] = False
        chosen.append(unit)
    return torch.tensor(chosen, device=free.device)
