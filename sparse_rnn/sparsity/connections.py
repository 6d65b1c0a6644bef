"""Which connections of a recurrent network are left: by gate, by what they read, by unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn

from sparse_rnn.recurrent.finding import describable_modules
from sparse_rnn.recurrent.layers import RecurrentLayer, named_layers
from sparse_rnn.sparsity.masks import removed_share
from sparse_rnn.sparsity.statistics import GateStatistics, gate_statistics


@dataclass(frozen=True)
class Connections:
    """What is left of the connections of one layer in one direction.

    Attributes:
        gates: How much of each gate of each kernel is left, kernel by kernel in the order of ``roles``.
        inputs: Number of connections left of the kernels that read the input.
        recurrent: Number left of those that read a state, or what the step computes from it.
        dense_ratio: Number of input connections to one recurrent connection before pruning.
        incoming: Number of connections into each unit, from the input and from states, over all gates, [H].
        outgoing: Number of connections out of each unit to the layer itself a step later, over all gates, [H] (an LSTM
            with projections: out of each projected unit). What the layers above read is not counted.
    """

    gates: Sequence[GateStatistics]
    inputs: int
    recurrent: int
    dense_ratio: float
    incoming: Tensor
    outgoing: Tensor

    @property
    def ratio(self) -> float:
        """Number of input connections left to one recurrent connection left (I/R); infinite without recurrent ones."""
        return _ratio(self.inputs, self.recurrent)

    @property
    def sparsity(self) -> float:
        """Share of the layer's connections that are removed."""
        return removed_share(self.inputs + self.recurrent, sum(gate.total for gate in self.gates))

    @property
    def shares(self) -> dict[tuple[str, str], float]:
        """Kernel and gate to the gate's share of all connections left of the layer; they sum to 1 (Figure 1)."""
        left = max(self.inputs + self.recurrent, 1)
        return {(gate.kernel, gate.gate): gate.kept / left for gate in self.gates}

    @property
    def no_incoming(self) -> int:
        """Number of units that nothing reaches, neither the input nor a state."""
        return int((self.incoming == 0).sum())

    @property
    def no_outgoing(self) -> int:
        """Number of units that reach no unit of the layer."""
        return int((self.outgoing == 0).sum())


def connections(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> dict[str, Connections]:
    """Count what is left of the connections of every recurrent layer of a model.

    Args:
        model: The model.
        masks: Parameter name to mask, True = kept; the weights of a kernel without one are kept unless they are 0.

    Returns:
        Layer (see :func:`named_layers`) to its connections.
    """
    return {name: layer_connections(layer, masks) for name, layer in named_layers(describable_modules(model)).items()}


@torch.no_grad()
def layer_connections(layer: RecurrentLayer, masks: Mapping[str, Tensor] | None = None) -> Connections:
    """Count what is left of the connections of one layer; see :func:`connections`."""
    kept = kept_weights(layer, masks)
    reads = layer.cell.reads
    gates = [
        gate for role, mask in kept.items() for gate in gate_statistics(layer.kernels[role], layer.gates_of(role), mask)
    ]
    of_input = layer.cell.of_input
    others = [role for role in kept if role not in of_input]
    # Of a cell without a kernel that reads a state itself, those that read what the step makes of it.
    of_state = [role for role, source in reads.items() if source in layer.cell.states] or others
    out_of_units = [kept[role].sum(0).cpu() for role in of_state if kept[role].shape[1] == layer.state_sizes[0]]
    into_units = [mask for role, mask in kept.items() if layer.gates_of(role) == layer.cell.gates]
    return Connections(
        gates=gates,
        inputs=sum(int(kept[role].sum()) for role in of_input),
        recurrent=sum(int(kept[role].sum()) for role in others),
        dense_ratio=_ratio(*(sum(kept[role].numel() for role in roles) for roles in (of_input, others))),
        incoming=_total(mask.sum(1).view(-1, layer.hidden_size).sum(0) for mask in into_units),
        outgoing=_total([torch.zeros(layer.state_sizes[0], dtype=torch.long, device="cpu"), *out_of_units]),
    )


def kept_weights(layer: RecurrentLayer, masks: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Role to the mask of the kernel, all gates together, True = kept; see :func:`connections`."""
    masks = masks or {}
    kept = {
        role: layer.part(role, masks[name]) if (name := layer.kernels[role]) in masks else weight != 0
        for role, weight in layer.weights.items()
    }
    return layer.all_gates(kept)


def _ratio(inputs: int, recurrent: int) -> float:
    return inputs / recurrent if recurrent else inf


def _total(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum(0).cpu()
