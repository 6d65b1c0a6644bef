"""Keep-masks: ranking of scores under an allocation, masking in place, packing for checkpoints, statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Allocation = Literal["global", "per_kernel", "per_gate"]
Gates = Mapping[str, tuple[str, ...]]


class Masks(Mapping[str, Tensor]):
    """Which weights of a model are kept: parameter name to a boolean tensor of its shape, True = kept.

    Args:
        masks: The mapping; every name is a parameter of ``module``.
        module: The model that the masks act on, in place.
    """

    def __init__(self, masks: Mapping[str, Tensor], module: nn.Module) -> None:
        for name, mask in masks.items():
            parameter = _parameter(module, name)
            if mask.shape != parameter.shape:
                raise ValueError(
                    f"The mask of {name} has shape {tuple(mask.shape)} but the parameter {tuple(parameter.shape)}: "
                    "these masks belong to another model."
                )
        self._module = module
        self._masks = {name: mask.to(_parameter(module, name).device) for name, mask in masks.items()}
        self._factors: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __repr__(self) -> str:
        return f"Masks({len(self)} kernels, {self.kept} of {self.total} weights kept, sparsity {self.sparsity:.4f})"

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return sum(int(mask.count_nonzero()) for mask in self._masks.values())

    @property
    def total(self) -> int:
        """Number of weights, kept and removed."""
        return sum(mask.numel() for mask in self._masks.values())

    @property
    def sparsity(self) -> float:
        """Share of the weights that are removed."""
        return 1 - self.kept / self.total

    def apply_(self) -> None:
        """Sets every removed weight of the model to 0, in place."""
        self._zero({name: _parameter(self._module, name) for name in self})

    def apply_to_gradients_(self) -> None:
        """Sets the gradient of every removed weight to 0, in place, so that clipping does not count it."""
        gradients = {name: _parameter(self._module, name).grad for name in self}
        self._zero({name: gradient for name, gradient in gradients.items() if gradient is not None})

    @torch.no_grad()
    def _zero(self, tensors: dict[str, Tensor]) -> None:
        if tensors:
            torch._foreach_mul_(list(tensors.values()), [self._factor(*item) for item in tensors.items()])

    def _factor(self, name: str, like: Tensor) -> Tensor:
        """The mask as numbers of the tensor's dtype: multiplying by booleans is ten times slower on a CPU."""
        factor = self._factors.get(name)
        if factor is None or factor.dtype != like.dtype or factor.device != like.device:
            factor = self._factors[name] = self._masks[name].to(like)
        return factor

    def digest(self) -> str:
        """A SHA-256 of names, shapes and bits, in hexadecimal: equal if and only if the masks are."""
        sha = hashlib.sha256()
        for name in sorted(self):
            sha.update(f"{name}{tuple(self[name].shape)}".encode())
            sha.update(bytes(_pack(self[name]).tolist()))
        return sha.hexdigest()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Name to ``{"bits": packed uint8 tensor, "shape": list}``; tensors and primitives only."""
        return {name: {"bits": _pack(mask), "shape": list(mask.shape)} for name, mask in self.items()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Mapping[str, Any]], module: nn.Module) -> Masks:
        """Rebuilds the masks that :meth:`state_dict` packed, for a model with the same parameters.

        Raises:
            ValueError: If a name is no parameter of the model, or a shape differs.
        """
        return cls({name: _unpack(packed["bits"], packed["shape"]) for name, packed in state.items()}, module)


def keep_largest(
    scores: Mapping[str, Tensor], sparsity: float, gates: Gates, allocation: Allocation
) -> dict[str, Tensor]:
    """Keeps the weights with the largest scores: exactly round((1 - sparsity)·n) of the n weights of every group.

    Args:
        scores: Parameter name to scores. Ties are broken by position, the earlier one is kept.
        sparsity: Share to remove, in [0, 1).
        gates: Parameter name to its gates (row blocks).
        allocation: What a group is: ``global``, all kernels together; ``per_kernel``, each kernel; ``per_gate``, each
            gate of each kernel.

    Returns:
        Parameter name to mask.

    Raises:
        ValueError: If the sparsity or the allocation is out of range, or a score is not a number.
    """
    check_sparsity(sparsity)
    check_allocation(allocation)
    for name, score in scores.items():
        if torch.isnan(score).any():
            raise ValueError(
                f"{int(torch.isnan(score).sum())} scores of {name} are NaN: the model's activations or weights are not "
                "finite; check the initialisation and the input scale, or take another criterion."
            )
    if allocation == "global":
        flat = torch.cat([score.flatten() for score in scores.values()])
        parts = _keep(flat, sparsity).split([score.numel() for score in scores.values()])
        return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}
    return {
        name: torch.cat([_keep(block, sparsity) for block in score.flatten().chunk(blocks)]).view_as(score)
        for name, score in scores.items()
        for blocks in [len(gates[name]) if allocation == "per_gate" else 1]
    }


def check_sparsity(sparsity: float) -> None:
    """Refuses a sparsity outside [0, 1) with a ValueError."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity={sparsity}: give the share of weights to remove, at least 0 and below 1.")


def check_allocation(allocation: str) -> None:
    """Refuses an unknown allocation with a ValueError."""
    if allocation not in get_args(Allocation):
        raise ValueError(f"allocation={allocation!r}: choose one of {', '.join(get_args(Allocation))}.")


def _keep(scores: Tensor, sparsity: float) -> Tensor:
    """Mask of the round((1 - sparsity)·n) largest of a flat tensor; the earlier of equal scores wins."""
    count = round((1 - sparsity) * scores.numel())
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(scores.numel() - count + 1).values
    keep = scores > threshold
    ties = (scores == threshold).nonzero().flatten()
    keep[ties[: count - int(keep.count_nonzero())]] = True
    return keep


@dataclass(frozen=True)
class GateStatistics:
    """How much of one gate of one kernel is left.

    Attributes:
        kernel: Parameter name.
        gate: Gate name.
        kept: Number of weights kept.
        total: Number of weights.
    """

    kernel: str
    gate: str
    kept: int
    total: int

    @property
    def sparsity(self) -> float:
        """Share of the gate's weights that are removed."""
        return 1 - self.kept / self.total


def statistics(masks: Mapping[str, Tensor], gates: Gates) -> list[GateStatistics]:
    """One entry for every gate of every kernel, in order."""
    return [
        GateStatistics(name, gate, int(block.count_nonzero()), block.numel())
        for name, mask in masks.items()
        for gate, block in zip(gates[name], mask.chunk(len(gates[name])), strict=True)
    ]


def table(rows: list[GateStatistics]) -> str:
    """The statistics as a table of text, with the total below."""
    kept, total = sum(row.kept for row in rows), sum(row.total for row in rows)
    lines = [(row.kernel, row.gate, f"{row.kept:,} of {row.total:,}", f"{row.sparsity:.2%}") for row in rows]
    lines = [
        ("kernel", "gate", "kept", "sparsity"),
        *lines,
        ("all", "", f"{kept:,} of {total:,}", f"{1 - kept / total:.2%}"),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{kernel:<{widths[0]}}  {gate:<{widths[1]}}  {left:>{widths[2]}}  {sparsity:>{widths[3]}}"
        for kernel, gate, left, sparsity in lines
    )


def _parameter(module: nn.Module, name: str) -> nn.Parameter:
    try:
        return module.get_parameter(name)
    except AttributeError:
        raise ValueError(f"The model has no parameter {name!r}: these masks belong to another model.") from None


def _pack(mask: Tensor) -> Tensor:
    """Eight weights a byte, the first in the lowest bit; the last byte is padded with zeros."""
    bits = nn.functional.pad(mask.detach().flatten().cpu().to(torch.uint8), (0, -mask.numel() % 8)).view(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def _unpack(packed: Tensor, shape: list[int]) -> Tensor:
    bits = packed.cpu().unsqueeze(1) >> torch.arange(8, dtype=torch.uint8) & 1
    count = 1
    for size in shape:
        count *= size
    return bits.flatten()[:count].view(shape).bool()
