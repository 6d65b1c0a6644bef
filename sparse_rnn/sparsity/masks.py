"""Keep-masks: ranking of scores under an allocation, masking in place, packing for checkpoints, statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.sparsity.allocation import Allocation, Gates, Group, allocate
from sparse_rnn.sparsity.ranking import check_room, cut, diagonals, fill_, reserve_


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
        """The mask as numbers of the tensor's dtype: multiplying by booleans is much slower on a CPU."""
        factor = self._factors.get(name)
        if factor is None or factor.dtype != like.dtype or factor.device != like.device:
            factor = self._factors[name] = self._masks[name].to(like)
        return factor

    @classmethod
    def full(cls, module: nn.Module, names: Collection[str]) -> Masks:
        """Masks that keep all of some weights."""
        return cls({name: torch.ones_like(_parameter(module, name), dtype=torch.bool) for name in names}, module)

    def digest(self) -> str:
        """A SHA-256 of names, shapes and bits, in hexadecimal: equal if and only if the masks are."""
        sha = hashlib.sha256()
        for name in sorted(self):
            sha.update(f"{name}{tuple(self[name].shape)}".encode())
            sha.update(_pack(self[name]).numpy().tobytes())
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
    scores: Mapping[str, Tensor],
    sparsity: float,
    gates: Gates,
    allocation: Allocation,
    diagonal: Collection[str] = (),
    min_kept: int = 0,
    progress: float = 1.0,
) -> dict[str, Tensor]:
    """Keeps the weights with the largest scores: exactly round((1 - sparsity)·n) of the n weights of every group.

    Args:
        scores: Parameter name to scores. Ties are broken by position, the earlier one is kept.
        sparsity: Share to remove, in [0, 1).
        gates: Parameter name to its gates (row blocks).
        allocation: What a group is: ``global``, all kernels together; ``per_kernel``, each kernel; ``per_gate``, each
            gate of each kernel; ``erk``, each kernel, of a density proportional to (units + inputs) / (units · inputs)
            and at most 1 (Erdős-Rényi-Kernel, Evci et al. 2020; every gate counts as a matrix of its own), which
            together keep round((1 - sparsity)·n). Or a mapping of shell-style patterns of parameter names to the
            density of each kernel that matches, or to a mapping of gate names to densities; what it does not name is
            one more group, which keeps what is left of round((1 - sparsity)·n). Where it names everything, the sum of
            the rounded counts stays.
        diagonal: Parameter names of kernels, of whose square gates the diagonals stay, counted within the total.
        min_kept: Number of its best weights that every kernel, gate and neuron keeps, within the total. A neuron is a
            unit's incoming weights in one kernel, over all gates.
        progress: Share of the rounds that is over, in (0, 1]: a group that keeps a share d of its weights in the end
            keeps d^progress of them.

    Returns:
        Parameter name to mask.

    Raises:
        ValueError: If a value is out of range, values contradict each other, or a score is not a number.
    """
    check_min_kept(min_kept)
    shapes = {name: score.shape for name, score in scores.items()}
    groups = [group.on_the_way(progress) for group in allocate(shapes, gates, sparsity, allocation)]
    return keep_in_groups(scores, gates, groups, diagonal, min_kept)


def keep_in_groups(
    scores: Mapping[str, Tensor],
    gates: Gates,
    groups: Sequence[Group],
    diagonal: Collection[str] = (),
    min_kept: int = 0,
) -> dict[str, Tensor]:
    """Keeps the weights with the largest scores, as many of each group as it says; see :func:`keep_largest`."""
    check_numbers(scores)
    blocks = {name: cut(score, gates[name]) for name, score in scores.items()}
    keep = diagonals(blocks, diagonal)
    check_room(groups, keep)
    if min_kept:
        reserve_(keep, blocks, groups, min_kept)
    for group in groups:
        fill_([keep[name][g] for name, g in group.blocks], [blocks[name][g] for name, g in group.blocks], group.kept)
    return {name: mask.view_as(scores[name]) for name, mask in keep.items()}


def check_numbers(scores: Mapping[str, Tensor]) -> None:
    """Refuses scores that are no numbers with a ValueError."""
    for name, score in scores.items():
        if torch.isnan(score).any():
            raise ValueError(
                f"{int(torch.isnan(score).sum())} scores of {name} are NaN: the model's activations or weights are not "
                "finite; check the initialisation and the input scale, or take another criterion."
            )


def check_min_kept(min_kept: int) -> None:
    """Refuses a negative number with a ValueError."""
    if min_kept < 0:
        raise ValueError(f"min_kept={min_kept}: give the number of weights to keep at least, 0 for no such guard.")


def emptied(masks: Mapping[str, Tensor], gates: Gates) -> str | None:
    """One sentence that names the kernels and gates without any weight left, and counts the neurons; None without any.

    A neuron is a unit's incoming weights in one kernel, over all gates. What lies in an emptied kernel is not told.
    """
    kernels = [name for name, mask in masks.items() if not mask.any()]
    blocks = {name: cut(mask, gates[name]) for name, mask in masks.items() if name not in kernels}
    gone = [
        f"gate {gate} of {name}"
        for name in blocks
        for gate, mask in zip(gates[name], blocks[name], strict=True)
        if not mask.any()
    ]
    neurons = sum(int((~mask.any(2).any(0)).sum()) for mask in blocks.values())
    gone = [f"kernel {name}" for name in kernels] + gone + ([f"{neurons} neurons"] if neurons else [])
    if not gone:
        return None
    return (
        f"No weight is left of {', '.join(gone)}: to keep some there, give another allocation or, before training, "
        "min_kept=1."
    )


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
