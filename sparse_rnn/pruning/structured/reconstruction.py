"""Units as linear functions of a few of them: the reconstruction, and what is lost by it.

Σ, [m, m], is the second moment of the units, not centred: the mean of h hᵀ over samples and steps. All of it is
computed in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_rnn.pruning.structured.units import all_but

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


def information_loss(moment: Tensor, kept: Tensor, tau: Tensor | float = 0.0, weight: Tensor | None = None) -> float:
    """Return Tr[W (Σ − Σ[:, J] (Σ[J, J] + diag τ)⁻¹ Σ[J, :]) Wᵀ], the minimum that :func:`reconstruction` reaches.

    Args:
        moment: Σ, [m, m].
        kept: The kept units J, [k].
        tau: τ of all units or of each kept one, [k].
        weight: W, [outputs, m], for the loss of what reads the units; the identity for that of the units themselves.

    Example:
        >>> import torch
        >>> information_loss(torch.diag(torch.tensor([3.0, 2.0, 1.0])), torch.tensor([0, 1]))
        1.0
    """
    residual = moment.double() - reconstruction(moment, kept, tau) @ moment.double()[kept]
    if weight is not None:
        residual = weight.double() @ residual @ weight.double().T
    return residual.trace().item()


def selection_loss(moment: Tensor, kept: Tensor, weight: Tensor | None = None) -> float:
    """Return E|W (h − h with removed units at 0)|²: what is lost where the other units are just left out.

    Args:
        moment: Σ, [m, m].
        kept: The kept units J, [k].
        weight: W, [outputs, m]; the identity if not given.

    Example:
        >>> import torch
        >>> selection_loss(torch.ones(2, 2), torch.tensor([0]))  # the second unit equals the first
        1.0
        >>> information_loss(torch.ones(2, 2), torch.tensor([0]))
        0.0
    """
    removed = all_but(kept, len(moment))
    rest = moment.double()[removed][:, removed]
    if weight is not None:
        part = weight.double()[:, removed]
        rest = part @ rest @ part.T
    return rest.trace().item()


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
