"""Allocations: which weights are ranked together, and how many of them stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import floor, prod
from typing import Literal, get_args

Rule = Literal["global", "per_kernel", "per_gate", "erk"]
Allocation = Rule | dict[str, float | dict[str, float]]
Gates = Mapping[str, tuple[str, ...]]
Shapes = Mapping[str, Sequence[int]]
Block = tuple[str, int]


@dataclass(frozen=True)
class Group:
    """Weights that are ranked together.

    Attributes:
        name: What to call them in a message.
        blocks: The gates they are made of: parameter name and index of the gate.
        total: Number of weights.
        density: Share of the weights that stay.
    """

    name: str
    blocks: Sequence[Block]
    total: int
    density: float

    @property
    def kept(self) -> int:
        """Number of weights that stay."""
        return round(self.density * self.total)

    def on_the_way(self, progress: float) -> Group:
        """The group when a share ``progress`` of the rounds is over: the density falls exponentially."""
        return replace(self, density=self.density**progress)

    def partly(self, share: float) -> Group:
        """The group when a share of what it is to lose is gone, the same share of every group."""
        return replace(self, density=1 - (1 - self.density) * share)


def check_sparsity(sparsity: float) -> None:
    """Refuses a sparsity outside [0, 1) with a ValueError."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity={sparsity}: give the share of weights to remove, at least 0 and below 1.")


def check_allocation(allocation: Allocation) -> None:
    """Refuses an unknown allocation, or a density outside [0, 1], with a ValueError."""
    if isinstance(allocation, Mapping):
        for pattern, gate, density in _entries(allocation):
            if not 0 <= density <= 1:
                raise ValueError(
                    f"allocation: the density {density} of {_described(pattern, gate)} is a share of weights to keep, "
                    "give at least 0 and at most 1."
                )
    elif allocation not in get_args(Rule):
        raise ValueError(
            f"allocation={allocation!r}: choose one of {', '.join(get_args(Rule))}, or map name patterns to densities."
        )


def allocate(shapes: Shapes, gates: Gates, sparsity: float, allocation: Allocation) -> list[Group]:
    """Shares the weights that stay, round((1 - sparsity)·n) of n, out among groups.

    Args:
        shapes: Parameter name to shape of the kernels to prune; the gates are blocks of rows of equal height.
        gates: Parameter name to its gates.
        sparsity: Share to remove, in [0, 1).
        allocation: See :func:`sparse_rnn.sparsity.masks.keep_largest`.

    Returns:
        Groups that hold every gate of every kernel once.

    Raises:
        ValueError: If a value is out of range, or the densities of a mapping contradict each other or the sparsity.
    """
    check_sparsity(sparsity)
    check_allocation(allocation)
    if isinstance(allocation, Mapping):
        return _named_groups(shapes, gates, sparsity, allocation)
    kernels = {name: _blocks(name, None, gates) for name in shapes}
    blocks = [block for found in kernels.values() for block in found]
    density = 1 - sparsity
    if allocation == "global":
        return [_group("the model", blocks, shapes, gates, density)]
    if allocation == "per_kernel":
        return [_group(name, found, shapes, gates, density) for name, found in kernels.items()]
    if allocation == "per_gate":
        return [_group(_described(name, gates[name][g]), [(name, g)], shapes, gates, density) for name, g in blocks]
    counts = _erdos_renyi(shapes, gates, density)
    return [
        Group(name, found, prod(shapes[name]), counts[name] / prod(shapes[name])) for name, found in kernels.items()
    ]


def _group(name: str, blocks: Sequence[Block], shapes: Shapes, gates: Gates, density: float) -> Group:
    total = sum(prod(shapes[kernel]) // len(gates[kernel]) for kernel, _ in blocks)
    return Group(name, blocks, total, density)


def _erdos_renyi(shapes: Shapes, gates: Gates, density: float) -> dict[str, int]:
    """Number of weights each kernel keeps: density ∝ Σ sides / Π sides of a gate, at most 1 (Evci et al. 2020)."""
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    left = round(density * sum(sizes.values()))
    weighted = {}
    for name, (rows, *others) in shapes.items():
        sides = (rows // len(gates[name]), *others)
        weighted[name] = sizes[name] * sum(sides) / prod(sides)
    counts: dict[str, int] = {}
    while over := {name for name in weighted if left * weighted[name] >= sizes[name] * sum(weighted.values())}:
        for name in over:
            counts[name] = sizes[name]
            left -= sizes[name]
            del weighted[name]
    exact = {name: left * weight / sum(weighted.values()) for name, weight in weighted.items()}
    counts |= {name: floor(count) for name, count in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: left - sum(counts[name] for name in exact)]:
        counts[name] += 1
    return counts


def _named_groups(shapes: Shapes, gates: Gates, sparsity: float, densities: Mapping) -> list[Group]:
    named: list[Group] = []
    taken: set[Block] = set()
    for pattern, gate, density in _entries(densities):
        for name in _matching(pattern, shapes):
            blocks = _blocks(name, gate, gates)
            twice = taken.intersection(blocks)
            if twice:
                raise ValueError(
                    f"allocation gives gate {gates[name][min(twice)[1]]} of {name} two densities, the second by "
                    f"{pattern!r}: let only one pattern match it."
                )
            taken.update(blocks)
            named.append(_group(_described(name, gate), blocks, shapes, gates, density))
    rest = [block for name in shapes for block in _blocks(name, None, gates) if block not in taken]
    return _with_rest(named, _group("what allocation does not name", rest, shapes, gates, 0), sparsity)


def _with_rest(named: list[Group], rest: Group, sparsity: float) -> list[Group]:
    """Adds the group of what is not named, which keeps what the named ones leave of the overall count."""
    total = rest.total + sum(group.total for group in named)
    wanted, taken = round((1 - sparsity) * total), sum(group.kept for group in named)
    rounding = (len(named) + 1) / 2
    if not rest.blocks and abs(wanted - taken) <= rounding:
        return named
    if not 0 <= wanted - taken <= rest.total:
        raise ValueError(
            f"allocation and sparsity={sparsity} contradict each other: of {total} weights {wanted} are to stay, the "
            f"densities keep {taken} and leave {rest.total} unnamed; give a sparsity from "
            f"{1 - (taken + rest.total) / total:.4f} to {1 - taken / total:.4f}, or other densities."
        )
    return [*named, replace(rest, density=(wanted - taken) / rest.total)] if rest.blocks else named


def _entries(densities: Mapping) -> Iterator[tuple[str, str | None, float]]:
    """Pattern, gate (None for all of a kernel) and density of every entry of a mapping."""
    for pattern, value in densities.items():
        for gate, density in value.items() if isinstance(value, Mapping) else [(None, value)]:
            yield pattern, gate, density


def _matching(pattern: str, names: Shapes) -> list[str]:
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise ValueError(f"allocation: {pattern!r} matches none of the kernels to prune: {', '.join(names)}.")
    return found


def _blocks(name: str, gate: str | None, gates: Gates) -> list[Block]:
    if gate is None:
        return [(name, index) for index in range(len(gates[name]))]
    if gate not in gates[name]:
        raise ValueError(f"allocation: {name} has no gate {gate!r}, only {', '.join(gates[name])}.")
    return [(name, gates[name].index(gate))]


def _described(name: str, gate: str | None) -> str:
    return name if gate is None else f"gate {gate} of {name}"
