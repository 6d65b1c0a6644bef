"""How much is left of each kernel and gate, in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.sparsity.masks import Masks


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
    total = sum(weight.numel() for weight in weights)
    grown = [weight for weight in weights if (weight.triu(1) + weight.tril(-1)).any()]
    return sum(int((weight == 0).sum()) for weight in grown) / total


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
        ("all", "", f"{kept:,} of {total:,}", f"{1 - kept / total:.2%}"),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{kernel:<{widths[0]}}  {gate:<{widths[1]}}  {left:>{widths[2]}}  {sparsity:>{widths[3]}}"
        for kernel, gate, left, sparsity in lines
    )


def emptied(masks: Masks) -> str | None:
    """Name, in one sentence, the kernels and gates without any weight left, and count the neurons; None without any.

    A neuron is a unit's incoming weights in one kernel, over all gates. What lies in an emptied kernel is not told.

    Example:
        >>> import torch
        >>> from sparse_rnn.sparsity import Masks
        >>> lost = torch.ones(4, 4, dtype=torch.bool)
        >>> lost[2] = False
        >>> emptied(Masks({"weight_hh_l0": lost}, torch.nn.RNN(3, 4))).split(":")[0]
        'No weight is left of 1 neurons'
    """
    kernels = [name for name, mask in masks.items() if not mask.any()]
    by_gate = {name: masks.kernels[name].by_gate(mask) for name, mask in masks.items() if name not in kernels}
    gone = [
        f"gate {gate} of {name}"
        for name, mask in by_gate.items()
        for gate, part in zip(masks.kernels[name].gates, mask, strict=True)
        if not part.any()
    ]
    neurons = sum(int((~mask.any(2).any(0)).sum()) for mask in by_gate.values())
    gone = [f"kernel {name}" for name in kernels] + gone + ([f"{neurons} neurons"] if neurons else [])
    if not gone:
        return None
    return (
        f"No weight is left of {', '.join(gone)}: to keep some there, give another allocation or, before training, "
        "min_kept=1."
    )
