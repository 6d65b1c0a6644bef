"""Units as linear functions of a few of them: the reconstruction, and what is lost by it.

Σ, [m, m], is the second moment of the units, not centred: the mean of h hᵀ over samples and steps. All of it is
computed in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CUTOFF = 1e-12  # of the largest eigenvalue: below it float64 has only rounding errors of Σ


def reconstruction(moment: Tensor, kept: Tensor, tau: Tensor | float = 0.0) -> Tensor:
    r"""Return the A that minimises E|h − A h_J|² + Tr(A diag(τ) Aᵀ), A = Σ[:, J] (Σ[J, J] + diag τ)⁻¹.

    Without regularisation the minimum is not unique where kept units depend on each other; then A gives each kept unit
    back as it is, so that nothing changes that need not.

    Args:
        moment: Σ, [m, m].
        kept: The kept units J, [k].
        tau: τ of all units or of each kept one, [k].

    Returns:
        A, [m, k].

    Example:
        >>> import torch
        >>> h = torch.tensor([[1.0, 2.0, 0.0], [3.0, 6.0, 1.0]], dtype=torch.float64)  # the second is twice the first
        >>> reconstruction(h.T @ h / 2, torch.tensor([0, 2])).round(decimals=6)
        tensor([[1., 0.],
                [2., 0.],
                [0., 1.]], dtype=torch.float64)
    """
    moment = moment.double()
    inner, outer = moment[kept][:, kept], moment[:, kept]
    tau = torch.as_tensor(tau, dtype=moment.dtype, device=moment.device).expand(len(kept))
    ridge = inner + tau.diag()
    factor, failed = torch.linalg.cholesky_ex(ridge)
    if bool((tau > 0).all()) and not failed:  # it fails where τ is lost in rounding
        return torch.cholesky_solve(outer.T, factor).T
    matrix = outer @ torch.linalg.pinv(ridge, rtol=_CUTOFF, hermitian=True)
    if not bool(tau.any()):
        matrix[kept] = torch.eye(len(kept), dtype=moment.dtype, device=moment.device)
    return matrix


def information_loss(moment: Tensor, kept: Tensor) -> float:
    """Return Tr[Σ − Σ[:, J] Σ[J, J]⁻¹ Σ[J, :]], the minimum that :func:`reconstruction` reaches without regularisation.

    Args:
        moment: Σ, [m, m].
        kept: The kept units J, [k].

    Example:
        >>> import torch
        >>> information_loss(torch.diag(torch.tensor([3.0, 2.0, 1.0])), torch.tensor([0, 1]))
        1.0
    """
    moment = moment.double()
    return (moment - reconstruction(moment, kept) @ moment[kept]).trace().item()


def degrees_of_freedom(moment: Tensor, regularisation: float) -> tuple[float, Tensor]:
    """Return N(λ) = Tr[Σ (Σ + λ I)⁻¹], and the leverage of each unit, which is its share of that.

    Args:
        moment: Σ, [m, m].
        regularisation: λ, above 0.

    Returns:
        N(λ), and q [m], q_j = [Σ (Σ + λ I)⁻¹]_jj / N(λ).

    Example:
        >>> import torch
        >>> freedom, leverage = degrees_of_freedom(torch.diag(torch.tensor([1.0, 1.0, 0.0])), 1.0)
        >>> freedom, leverage.tolist()
        (1.0, [0.5, 0.5, 0.0])
    """
    moment = moment.double()
    ridge = moment + regularisation * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    diagonal = torch.linalg.solve(ridge, moment).diagonal().clamp(min=0)
    freedom = diagonal.sum()
    if freedom == 0:
        return 0.0, torch.full_like(diagonal, 1 / len(diagonal))
    return freedom.item(), diagonal / freedom
