"""How much is left of each kernel and gate, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.sparsity.masks import Masks, removed_share

_MANY = 0.1  # of a kernel's neurons


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
        return removed_share(self.kept, self.total)


def gate_statistics(name: str, gates: Sequence[str], mask: Tensor) -> list[GateStatistics]:
    """Count what is left of every gate of one kernel.

    Args:
        name: The kernel's name.
        gates: Its gates.
        mask: Its mask, True = kept.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[True, False], [False, False]])
        >>> [(gate.gate, gate.kept, gate.total) for gate in gate_statistics("w", ("r", "z"), mask)]
        [('r', 1, 2), ('z', 0, 2)]
    """
    chunks = zip(gates, mask.chunk(len(gates)), strict=True)
    return [GateStatistics(name, gate, int(part.count_nonzero()), part.numel()) for gate, part in chunks]


def zeros(kernels: Targets) -> float:
    """Give the share of weights that are 0; kernels whose gates are initialised to 0 or the identity do not count.

    Example:
        >>> import torch
        >>> from sparse_rnn.recurrent import find_targets
        >>> gru = torch.nn.GRU(3, 4)
        >>> _ = gru.weight_hh_l0.data[:6].zero_()
        >>> round(zeros(find_targets(gru)), 3)  # 24 of 84
        0.286
    """
    weights = [kernel.by_gate(kernel.parameter.detach()) for kernel in kernels.values()]
    grown = [weight for weight in weights if (weight.triu(1) + weight.tril(-1)).any()]
    total = sum(weight.numel() for weight in grown)
    return sum(int((weight == 0).sum()) for weight in grown) / max(1, total)


def statistics(masks: Masks) -> list[GateStatistics]:
    """Count what is left of every gate of every kernel, in order.

    Example:
        >>> import torch
        >>> from sparse_rnn import prune
        >>> masks = prune(torch.nn.GRU(3, 4), None, sparsity=0.5, criterion="magnitude", allocation="per_gate")
        >>> [row.kept for row in statistics(masks)]
        [6, 6, 6, 8, 8, 8]
    """
    return [gate for name, mask in masks.items() for gate in gate_statistics(name, masks.kernels[name].gates, mask)]


def table(rows: list[GateStatistics]) -> str:
    """Format the statistics as a table of text, with the total below.

    Example:
        >>> print(table([GateStatistics("weight_hh_l0", "r", 1, 4), GateStatistics("weight_hh_l0", "z", 2, 4)]))
        kernel        gate    kept  sparsity
        weight_hh_l0  r     1 of 4    75.00%
        weight_hh_l0  z     2 of 4    50.00%
        all                 3 of 8    62.50%
    """
    kept, total = sum(row.kept for row in rows), sum(row.total for row in rows)
    lines = [(row.kernel, row.gate, f"{row.kept:,} of {row.total:,}", f"{row.sparsity:.2%}") for row in rows]
    lines = [
        ("kernel", "gate", "kept", "sparsity"),
        *lines,
        ("all", "", f"{kept:,} of {total:,}", f"{removed_share(kept, total):.2%}"),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{kernel:<{widths[0]}}  {gate:<{widths[1]}}  {left:>{widths[2]}}  {sparsity:>{widths[3]}}"
        for kernel, gate, left, sparsity in lines
    )


def undecided(masks: Masks, scores: Mapping[str, Tensor]) -> str | None:
    """Name, in one sentence, the kernels and gates that keep weights by their position alone; None without any.

    Args:
        masks: The masks.
        scores: The scores that they were chosen by.

    Example:
        >>> import torch
        >>> from sparse_rnn.sparsity import Masks
        >>> kept = torch.tensor([[True, False], [True, False]])
        >>> undecided(Masks({"weight_hh_l0": kept}, torch.nn.RNN(3, 2)), {"weight_hh_l0": torch.zeros(2, 2)})[:47]
        'All scores of kernel weight_hh_l0 are equal, so'
    """
    found: list[str] = []
    for name, mask in masks.items():
        kernel = masks.kernels[name]
        parts = zip(kernel.gates, kernel.by_gate(mask), kernel.by_gate(scores[name]), strict=True)
        gates = [gate for gate, kept, score in parts if _is_by_position(kept, score)]
        whole = len(gates) == len(kernel.gates)
        found += [f"kernel {name}"] if whole else [f"gate {gate} of {name}" for gate in gates]
    if not found:
        return None
    return (
        f"All scores of {', '.join(found)} are equal, so which of their weights stay is decided by position: take "
        "another criterion, or leave them out with kernels=."
    )


def _is_by_position(kept: Tensor, scores: Tensor) -> bool:
    """Tell whether some of equal scores stay and others do not."""
    return bool(kept.any() and not kept.all() and (scores == scores.flatten()[0]).all())


def bare_neurons(masks: Masks) -> dict[str, tuple[int, int]]:
    """Count the neurons without any weight left, and all neurons, of each kernel that keeps some weight.

    A neuron is a unit's incoming weights in one kernel, over all gates.

    Example:
        >>> import torch
        >>> lost = torch.ones(4, 4, dtype=torch.bool)
        >>> lost[2] = False
        >>> bare_neurons(Masks({"weight_hh_l0": lost}, torch.nn.RNN(3, 4)))
        {'weight_hh_l0': (1, 4)}
    """
    by_gate = {name: masks.kernels[name].by_gate(mask) for name, mask in masks.items() if mask.any()}
    return {name: (int((~mask.any(2).any(0)).sum()), mask.shape[1]) for name, mask in by_gate.items()}


def emptied(masks: Masks) -> str | None:
    """Name, in one sentence, the kernels and gates without any weight left, and where many neurons are; else None.

    A neuron is a unit's incoming weights in one kernel, over all gates; many are a tenth of the kernel's. Fewer are
    to be expected where a few weights a neuron are left, under a random mask, too. What lies in an emptied kernel is
    not told.

    Example:
        >>> import torch
        >>> lost = torch.ones(4, 4, dtype=torch.bool)
        >>> lost[2] = False
        >>> emptied(Masks({"weight_hh_l0": lost}, torch.nn.RNN(3, 4))).split(":")[0]
        'No weight is left of 1 of 4 neurons of weight_hh_l0'
    """
    kernels = [name for name, mask in masks.items() if not mask.any()]
    gates = [
        f"gate {gate} of {name}"
        for name, mask in masks.items()
        if name not in kernels
        for gate, part in zip(masks.kernels[name].gates, masks.kernels[name].by_gate(mask), strict=True)
        if not part.any()
    ]
    neurons = [
        f"{bare} of {units} neurons of {name}"
        for name, (bare, units) in bare_neurons(masks).items()
        if bare >= _MANY * units
    ]
    gone = [f"kernel {name}" for name in kernels] + gates + neurons
    if not gone:
        return None
    return (
        f"No weight is left of {', '.join(gone)}: to keep some there, give another allocation or, before training, "
        "min_kept=1."
    )
