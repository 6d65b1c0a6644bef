"""Allocations: which weights are ranked together, and how many of them stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import floor, prod
from typing import Literal, get_args

from sparse_rnn.checks import check_number
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.kernels import Kernel

Rule = Literal["global", "per_kernel", "per_gate", "erk"]
Allocation = Rule | dict[str, float | dict[str, float]]
Kernels = Mapping[str, Kernel]
GateOf = tuple[str, int]
"""A gate of a kernel: the kernel's name and the index of the gate."""


@dataclass(frozen=True)
class Group:
    """Weights that are ranked together.

    Attributes:
        name: What to call them in a message.
        gates: The gates that they are made of.
        total: Number of weights.
        density: Share of the weights that stay.
    """

    name: str
    gates: Sequence[GateOf]
    total: int
    density: float

    @property
    def kept(self) -> int:
        """Number of weights that stay."""
        return round(self.density * self.total)

    def on_the_way(self, share: float, geometric: bool = False) -> Group:
        """Return the group when a share of the way from dense to its final density is over.

        Args:
            share: From 0, nothing is removed, to 1, the final density.
            geometric: Whether the density falls by the same factor in equal shares of the way, as it does in rounds;
                otherwise a share of the weights that go in the end is gone, as a schedule means it.

        Example:
            >>> group = Group("the model", [("weight_hh_l0", 0)], total=100, density=0.25)
            >>> group.on_the_way(0.5).kept, group.on_the_way(0.5, geometric=True).kept
            (62, 50)
        """
        if share == 1:
            return self
        return replace(self, density=self.density**share if geometric else 1 - (1 - self.density) * share)


def check_sparsity(sparsity: float) -> None:
    """Refuse a sparsity outside [0, 1) with a UsageError."""
    check_number("sparsity", sparsity, "[0, 1)", "the share of weights to remove")


def check_allocation(allocation: Allocation) -> None:
    """Refuse an unknown allocation, or a density outside [0, 1], with a UsageError."""
    if isinstance(allocation, Mapping):
        for pattern, gate, density in _entries(allocation):
            option = f"allocation: the density of {_described(pattern, gate)}"
            check_number(option, density, "[0, 1]", "a share of weights to keep")
    elif allocation not in get_args(Rule):
        raise UsageError(
            f"allocation={allocation!r}: choose one of {', '.join(get_args(Rule))}, or map name patterns to densities."
        )


def counts_by_gate(allocation: Allocation) -> bool:
    """Tell whether gates of one kernel have numbers of weights of their own.

    Example:
        >>> counts_by_gate("erk"), counts_by_gate({"*hh*": {"n": 0.1}})
        (False, True)
    """
    named = allocation.values() if isinstance(allocation, Mapping) else ()
    return allocation == "per_gate" or any(isinstance(value, Mapping) for value in named)


def allocate(kernels: Kernels, sparsity: float, allocation: Allocation) -> list[Group]:
    """Share the weights that stay, round((1 - sparsity)·n) of n, out among groups.

    Args:
        kernels: The kernels to prune, by name.
        sparsity: Share to remove, in [0, 1).
        allocation: What a group is: ``global``, all kernels together; ``per_kernel``, each kernel; ``per_gate``, each
            gate of each kernel; ``erk``, each kernel, of a density proportional to (units + inputs) / (units · inputs)
            and at most 1 (Erdős-Rényi-Kernel, Evci et al. 2020; every gate counts as a matrix of its own), which
            together keep round((1 - sparsity)·n). Or a mapping of shell-style patterns of parameter names to the
            density of each kernel that matches, or to a mapping of gate names to densities; what it does not name is
            one more group, which keeps what is left of round((1 - sparsity)·n). Where it names everything, the sum of
            the rounded counts stays.

    Returns:
        Groups that hold every gate of every kernel once.

    Raises:
        UsageError: If a value is out of range, or the densities of a mapping contradict each other or the sparsity.

    Example:
        >>> import torch
        >>> from sparse_rnn.recurrent import find_targets
        >>> groups = allocate(find_targets(torch.nn.GRU(2, 10)), 0.9, "erk")
        >>> [(group.name, group.kept, group.total) for group in groups]
        [('weight_ih_l0', 14, 60), ('weight_hh_l0', 22, 300)]
    """
    check_sparsity(sparsity)
    check_allocation(allocation)
    if isinstance(allocation, Mapping):
        return _named_groups(kernels, sparsity, allocation)
    density = 1 - sparsity
    if allocation == "global":
        return [
            _group("the model", [gate for name in kernels for gate in _gates(name, None, kernels)], kernels, density)
        ]
    if allocation == "per_kernel":
        return [_group(name, _gates(name, None, kernels), kernels, density) for name in kernels]
    if allocation == "per_gate":
        gates = [(name, g, gate) for name, kernel in kernels.items() for g, gate in enumerate(kernel.gates)]
        return [_group(_described(name, gate), [(name, g)], kernels, density) for name, g, gate in gates]
    counts = _erdos_renyi(kernels, density)
    groups = [_group(name, _gates(name, None, kernels), kernels, density) for name in kernels]
    return [replace(group, density=counts[group.name] / group.total) for group in groups]


def _group(name: str, gates: Sequence[GateOf], kernels: Kernels, density: float) -> Group:
    total = sum(kernels[kernel].parameter.numel() // len(kernels[kernel].gates) for kernel, _ in gates)
    return Group(name, gates, total, density)


def _erdos_renyi(kernels: Kernels, density: float) -> dict[str, int]:
    """Count the weights that each kernel keeps: density ∝ Σ sides / Π sides of a gate, at most 1 (Evci et al. 2020)."""
    sizes = {name: kernel.parameter.numel() for name, kernel in kernels.items()}
    left = round(density * sum(sizes.values()))
    weighted = {}
    for name, kernel in kernels.items():
        rows, *others = kernel.shape
        sides = (rows // len(kernel.gates), *others)
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


def _named_groups(kernels: Kernels, sparsity: float, densities: Mapping) -> list[Group]:
    named: list[Group] = []
    taken: set[GateOf] = set()
    for pattern, gate, density in _entries(densities):
        for name in _matching(pattern, kernels):
            gates = _gates(name, gate, kernels)
            twice = taken.intersection(gates)
            if twice:
                raise UsageError(
                    f"allocation gives gate {kernels[name].gates[min(twice)[1]]} of {name} two densities, the second "
                    f"by {pattern!r}: let only one pattern match it."
                )
            taken.update(gates)
            named.append(_group(_described(name, gate), gates, kernels, density))
    rest = [gate for name in kernels for gate in _gates(name, None, kernels) if gate not in taken]
    return _with_rest(named, _group("what allocation does not name", rest, kernels, 0), sparsity)


def _with_rest(named: list[Group], rest: Group, sparsity: float) -> list[Group]:
    """Add the group of what is not named, which keeps what the named ones leave of the overall count."""
    total = rest.total + sum(group.total for group in named)
    wanted, taken = round((1 - sparsity) * total), sum(group.kept for group in named)
    rounding = (len(named) + 1) / 2
    if not rest.gates and abs(wanted - taken) <= rounding:
        return named
    if not 0 <= wanted - taken <= rest.total:
        raise UsageError(
            f"allocation and sparsity={sparsity} contradict each other: of {total} weights {wanted} are to stay, the "
            f"densities keep {taken} and leave {rest.total} unnamed; give a sparsity from "
            f"{1 - (taken + rest.total) / total:.4f} to {1 - taken / total:.4f}, or other densities."
        )
    return [*named, replace(rest, density=(wanted - taken) / rest.total)] if rest.gates else named


def _entries(densities: Mapping) -> Iterator[tuple[str, str | None, float]]:
    """Yield pattern, gate (None for all of a kernel) and density of every entry of a mapping."""
    for pattern, value in densities.items():
        for gate, density in value.items() if isinstance(value, Mapping) else [(None, value)]:
            yield pattern, gate, density


def _matching(pattern: str, names: Kernels) -> list[str]:
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise UsageError(f"allocation: {pattern!r} matches none of the kernels to prune: {', '.join(names)}.")
    return found


def _gates(name: str, gate: str | None, kernels: Kernels) -> list[GateOf]:
    """One gate of a kernel, or all of them."""
    known = kernels[name].gates
    if gate is None:
        return [(name, index) for index in range(len(known))]
    if gate not in known:
        raise UsageError(f"allocation: {name} has no gate {gate!r}, only {', '.join(known)}.")
    return [(name, known.index(gate))]


def _described(name: str, gate: str | None) -> str:
    return name if gate is None else f"gate {gate} of {name}"
