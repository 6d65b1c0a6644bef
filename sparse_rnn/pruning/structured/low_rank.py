"""Low-rank factorisation of recurrent kernels: the other way to fewer weights, which keeps all units."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sparse_rnn.checks import check_flag
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured.groups import UnitGroup, find_groups
from sparse_rnn.pruning.structured.moments import collect_moments, moment_name
from sparse_rnn.pruning.structured.trace import Links
from sparse_rnn.pruning.structured.unit_criterion import batches_of, check_units, layers_of_modules, sizes_wanted
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.finding import find_recurrent

Model = TypeVar("Model", bound=nn.Module)

_CUTOFF = 1e-12  # of the largest eigenvalue: below it float64 has only rounding errors of a second moment
_SETTLED = 1e-9  # of what there is to lose: smaller improvements are not waited for
_MOST_STEPS = 1000

Part = tuple[Tensor | None, Tensor]
"""The rows of a kernel that read something, all of them if None, and the second moment of that."""


class Product(nn.Module):
    """Computes a kernel as the product of two thin matrices, as a parametrization of :mod:`torch.nn.utils.parametrize`.

    Args:
        left: The first factor that it starts from, [rows, r].
        right: The second one, [r, columns].

    Example:
        >>> rnn = nn.RNN(3, 4)
        >>> parametrize.register_parametrization(rnn, "weight_hh_l0", Product(torch.ones(4, 1), torch.ones(1, 4)))
        ParametrizedRNN(
        ...
        >>> rnn.weight_hh_l0.sum().item()
        16.0
    """

    def __init__(self, left: Tensor, right: Tensor) -> None:
        super().__init__()
        self._start = left, right

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Multiply the factors."""
        return left @ right

    def right_inverse(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors to start from."""
        return self._start


@dataclass(frozen=True)
class LowRank:
    """Replace the kernels that read a layer's own units by products of two matrices of a given rank.

    All units stay. The kernel [G·H, H] becomes [G·H, r] times [r, H], which are trained in its place; a layer of
    PyTorch multiplies them out at each call, so that nothing becomes faster.

    Args:
        rank: The rank r, or a share of the number of units, for all recurrent modules or by their names; as ``units``
            of :class:`UnitCriterion`.
        reconstruct: Whether the product is the best one for the units as they are, E|W h − U V h|², which takes data;
            if not, the best one in the Frobenius norm. Where gates read different things, such as h and r ∘ h, it is
            the sum over the gates that becomes small.

    Example:
        >>> rnn, x = nn.GRU(3, 8), torch.randn(9, 4, 3)
        >>> low = LowRank(rank=2).factorise(rnn, x)
        >>> torch.linalg.matrix_rank(low.weight_hh_l0).item(), sum(p.numel() for p in low.parameters())
        (2, 184)
    """

    rank: int | float | Mapping[str, int | float]
    reconstruct: bool = True

    def __post_init__(self) -> None:
        check_units("rank", self.rank)
        check_flag("reconstruct", self.reconstruct)

    @torch.no_grad()
    def factorise(self, model: Model, data: Any = None, loss_fn: LossFn | None = None) -> Model:
        """Return a copy of a model whose recurrent kernels are products; the model stays as it is.

        Args:
            model: The model.
            data: What :meth:`UnitCriterion.plan` takes; not needed without ``reconstruct``.
            loss_fn: ``loss_fn(model, batch)`` runs the model on a batch.

        Raises:
            UsageError: If a rank does not fit, a module has a projection, or there is no data where it is needed.
        """
        recurrent = find_recurrent(model)
        ranks = sizes_wanted(self.rank, recurrent, "rank")
        for found in recurrent:
            if found.name in ranks and getattr(found.module, "proj_size", 0) > 0:
                raise UsageError(
                    f"{found.label} has a projection, which makes a product of its recurrent kernel already: give it a "
                    "smaller proj_size."
                )
        wanted = layers_of_modules(recurrent, ranks)
        groups = find_groups(model, recurrent, wanted, Links(seen=set(wanted)))
        moments = {}
        if self.reconstruct:
            if data is None:
                raise UsageError("LowRank needs data, or reconstruct=False.")
            moments = collect_moments(model, recurrent, groups, batches_of(data)[1], loss_fn)
        low = copy.deepcopy(model)
        for group in groups:
            rank = next(ranks[found.name] for found in recurrent if _has(found.layers, group))
            for kernel in dict.fromkeys(reader.parameter for reader in group.readers):
                readers = [reader for reader in group.readers if reader.parameter == kernel]
                parts = [(reader.rows, moments[moment_name(reader)].mean) for reader in readers] if moments else []
                _factorise(low, kernel, rank, parts)
        return low


def _has(layers: Any, group: UnitGroup) -> bool:
    return any(layer is own for directions in layers for layer in directions for own in group.layers.values())


def _factorise(model: nn.Module, name: str, rank: int, parts: Sequence[Part]) -> None:
    kernel = model.get_parameter(name).detach()
    if len(parts) > 1:
        left, right = joint_factors(kernel, rank, parts)
    else:
        left, right = factors(kernel, rank, parts[0][1] if parts else None)
    owner, _, attribute = name.rpartition(".")
    product = Product(left.to(kernel), right.to(kernel))
    parametrize.register_parametrization(model.get_submodule(owner), attribute, product)


def factors(kernel: Tensor, rank: int, moment: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the product of two matrices of a rank that is nearest to a kernel.

    Args:
        kernel: W, [rows, m].
        rank: r.
        moment: Σ of what the kernel reads, [m, m], for the smallest Tr[(W − UV) Σ (W − UV)ᵀ]: U holds the leading
            eigenvectors of W Σ Wᵀ, and V = Uᵀ W. The identity if not given.

    Returns:
        U [rows, r] and V [r, m], in float64, of about the same norm.

    Example:
        >>> left, right = factors(torch.diag(torch.tensor([3.0, 2.0])), 1)
        >>> (left @ right).round(decimals=6).tolist()
        [[3.0, 0.0], [0.0, 0.0]]
    """
    kernel = kernel.double()
    # Σ = S Sᵀ, so that W Σ Wᵀ = (W S)(W S)ᵀ, whose eigenvectors are the left singular vectors of W S.
    root = kernel
    if moment is not None:
        values, vectors = torch.linalg.eigh(moment.double().to(kernel.device))
        root = kernel @ (vectors * values.clamp(min=0).sqrt())
    left = torch.linalg.svd(root, full_matrices=False).U[:, :rank]
    right = left.T @ kernel
    scale = right.norm(dim=1).clamp(min=1e-300).sqrt()
    return left * scale, right / scale.unsqueeze(1)


def joint_factors(kernel: Tensor, rank: int, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    """Return the product of two matrices of a rank that is nearest to a kernel whose rows read different things.

    Part p has the rows W_p and U_p, and reads what has the second moment Σ_p. The sum of its losses over the parts,
    Tr[(W_p − U_p V) Σ_p (W_p − U_p V)ᵀ], has no minimum in closed form, as all of them share V. But no Σ_p is above
    their sum Σ. So with T_p = X_p + (W_p − X_p) Σ_p Σ⁻¹ the loss is, for any X, at most Tr[(T − UV) Σ (T − UV)ᵀ] plus a
    number that U and V do not change, and just that where UV = X. :func:`factors` finds the U and V for which this is
    smallest, and their product is the next X. So the loss falls with each step, until it settles in a minimum, which
    may be a local one; Srebro and Jaakkola (ICML 2003) do so for single weights that count differently.

    Args:
        kernel: W, [rows, m].
        rank: r.
        parts: The rows of each part, and its Σ_p, [m, m].

    Returns:
        U [rows, r] and V [r, m], as :func:`factors`.

    Example:
        >>> first, second = torch.diag(torch.tensor([2.0, 1.0])), torch.diag(torch.tensor([0.0, 9.0]))
        >>> parts = [(torch.tensor([0]), first), (torch.tensor([1]), second)]
        >>> left, right = joint_factors(torch.eye(2), 1, parts)  # the second row reads more
        >>> (left @ right).round(decimals=6).abs().tolist()
        [[0.0, 0.0], [0.0, 1.0]]
    """
    kernel = kernel.double()
    moments = [(slice(None) if rows is None else rows.to(kernel.device), moment.to(kernel)) for rows, moment in parts]

    def read(values: Tensor) -> Tensor:
        """Multiply the rows by the second moments of what they read."""
        product = torch.zeros_like(values)
        for rows, moment in moments:
            product[rows] = values[rows] @ moment
        return product

    total = torch.stack([moment for _, moment in moments]).sum(0)
    inverse = torch.linalg.pinv(total, rtol=_CUTOFF, hermitian=True)
    settled = _SETTLED * (read(kernel) * kernel).sum()
    target, lost = kernel, kernel.new_tensor(torch.inf)
    for _ in range(_MOST_STEPS):
        left, right = factors(target, rank, total)
        rest = kernel - left @ right
        before, lost = lost, (read(rest) * rest).sum()
        if before - lost <= settled:
            break
        target = left @ right + read(rest) @ inverse
    return left, right
