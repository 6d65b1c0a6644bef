"""What a recurrent module and its layers are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sparse_rnn.recurrent import cells
from sparse_rnn.recurrent.cells import Cell
from sparse_rnn.recurrent.entries import Entry


@dataclass(frozen=True)
class RecurrentLayer:
    """One layer of a recurrent module in one direction.

    Attributes:
        cell: Its cell.
        kernels: Role (``"ih"``, ``"hh"``, ``"ch"``) to the kernel's parameter name in the whole model; a parameter that
            several layers share has the name that was found first.
        parameters: Role to the live parameter, [G·H, I or H], that the kernel is, or that it is a part of.
        whole_biases: What a kernel is called to its bias, [G·H], as it is whenever it is asked for, be it a parameter
            or computed from others; empty without biases.
        reverse: Whether the layer runs from the last step to the first.
    """

    cell: Cell
    kernels: Mapping[str, str]
    parameters: Mapping[str, nn.Parameter]
    whole_biases: Mapping[str, Tensor]
    reverse: bool

    @property
    def biases(self) -> Mapping[str, Tensor]:
        """Role to the bias that is added to what its kernel makes, live."""
        return self.cell.biases_of(self.whole_biases)

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Role to the kernel, live, [G·H, I or H]."""
        if not self.cell.parts:
            return self.parameters
        return {role: self.part(role, parameter) for role, parameter in self.parameters.items()}

    def part(self, role: str, values: Tensor) -> Tensor:
        """Return, of something shaped as the parameter, what belongs to a kernel."""
        return self.cell.part_of(role, values)

    def whole(self, role: str, values: Tensor) -> Tensor:
        """Return values of a kernel in the shape of its parameter, 0 where that has other parts."""
        if role not in self.cell.parts:
            return values
        whole = values.new_zeros(self.parameters[role].shape)
        self.part(role, whole).copy_(values)
        return whole

    def all_gates(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Join the parts of kernels whose gates read different things; each goes by the role of its first part."""
        parts: dict[str, list[Tensor]] = {}
        for role, value in values.items():
            parts.setdefault(self.cell.first_part_of(role), []).append(value)
        return {role: torch.cat(found) if len(found) > 1 else found[0] for role, found in parts.items()}

    def run_by(self, cell: Cell, whole_biases: Mapping[str, Tensor]) -> RecurrentLayer:
        """Return the layer as another cell, which calls the kernels alike, with other biases would run it."""

        def of(role: str) -> str:
            return role if role in self.kernels else cell.whole_of(role)

        return replace(
            self,
            cell=cell,
            kernels={role: self.kernels[of(role)] for role in cell.reads},
            parameters={role: self.parameters[of(role)] for role in cell.reads},
            whole_biases=whole_biases,
        )

    @property
    def hidden_size(self) -> int:
        """Number of units, H."""
        return len(next(iter(self.weights.values()))) // len(self.cell.gates)

    @property
    def input_size(self) -> int:
        """Number of inputs, I."""
        return self.weights[self.cell.of_input[0]].shape[1]

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Number of units of each state; an LSTM's h is as large as its projection, where it has one."""
        h, *others = (self.hidden_size for _ in self.cell.states)
        return (len(self.weights["hr"]) if self.cell is cells.PROJECTED_LSTM else h, *others)

    @property
    def precision(self) -> torch.dtype:
        """What scores are computed in, the type of the weights, but float32 at least."""
        return torch.promote_types(next(iter(self.weights.values())).dtype, torch.float32)

    def gates_of(self, role: str) -> tuple[str, ...]:
        """Return the row blocks of a kernel; a projection (``hr``) has one, which is h."""
        return ("h",) if self.cell is cells.PROJECTED_LSTM and role == "hr" else self.cell.gates

    @property
    def state_kernels(self) -> tuple[str, ...]:
        """The names of the kernels that read a state (``weight_hh``, ``weight_ch``) rather than the input."""
        return tuple(dict.fromkeys(name for role, name in self.kernels.items() if self.cell.reads[role] != "x"))


@dataclass(frozen=True)
class RecurrentModule:
    """A recurrent ``nn.Module`` of a model: its name there, and its layers from the input upwards.

    Attributes:
        name: The module's name in the model; empty for the model itself.
        module: The module.
        entry: What the registry knows of its class.
        layers: For each layer its directions: (forward,) or (forward, reverse).
    """

    name: str
    module: nn.Module
    entry: Entry
    layers: Sequence[Sequence[RecurrentLayer]]

    @property
    def label(self) -> str:
        """What to call the module in a message, its name, or its class where it is the model itself."""
        return self.name or type(self.module).__name__

    @property
    def takes_one_step(self) -> bool:
        """Whether a call of the module is one step, and the loop over time is the user's."""
        return self.entry.runs == "step"

    @property
    def has_own_forward(self) -> bool:
        """Whether the module's class has another ``forward`` than the one that is registered."""
        return type(self.module).forward is not self.entry.kind.forward


def layers_of(recurrent: Sequence[RecurrentModule]) -> list[RecurrentLayer]:
    """List all layers of recurrent modules, in order."""
    return [layer for found in recurrent for directions in found.layers for layer in directions]


def named_layers(recurrent: Sequence[RecurrentModule]) -> dict[str, RecurrentLayer]:
    """Name the layers of recurrent modules, in order, as logs and figures do.

    A layer is called ``<module>.l<depth>``, with ``_reverse`` behind it where it reads the sequence backwards; a cell
    goes by the name of its module alone, or of its class where it is the whole model.

    Example:
        >>> from torch import nn
        >>> from sparse_rnn.recurrent import find_recurrent
        >>> list(named_layers(find_recurrent(nn.GRU(3, 4, num_layers=2, bidirectional=True))))
        ['l0', 'l0_reverse', 'l1', 'l1_reverse']
    """
    names: dict[str, RecurrentLayer] = {}
    for found in recurrent:
        if found.takes_one_step:
            names[found.label] = found.layers[0][0]
            continue
        for depth, directions in enumerate(found.layers):
            for layer in directions:
                path = f"l{depth}" + ("_reverse" if layer.reverse else "")
                names[f"{found.name}.{path}" if found.name else path] = layer
    return names
