"""The recurrent modules of a model, and what their layers are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent import cells
from sparse_rnn.recurrent.cells import Cell
from sparse_rnn.recurrent.parameters import check_initialised, join, plain_parameters
from sparse_rnn.recurrent.registry import Entry, Place, entry_of, known_classes


@dataclass(frozen=True)
class RecurrentLayer:
    """One layer of a recurrent module in one direction.

    Attributes:
        cell: Its cell.
        kernels: Role (``"ih"``, ``"hh"``, ``"ch"``) to the kernel's parameter name in the whole model; a parameter that
            several layers share has the name that was found first.
        weights: Role to the kernel, a live parameter of shape [G·H, I or H].
        biases: Role to the bias, a live parameter of shape [G·H]; empty without biases.
        reverse: Whether the layer runs from the last step to the first.
    """

    cell: Cell
    kernels: Mapping[str, str]
    weights: Mapping[str, nn.Parameter]
    biases: Mapping[str, nn.Parameter]
    reverse: bool

    @property
    def hidden_size(self) -> int:
        """Number of units, H."""
        return len(next(iter(self.weights.values()))) // len(self.cell.gates)

    @property
    def input_size(self) -> int:
        """Number of inputs, I."""
        return next(self.weights[role].shape[1] for role, source in self.cell.reads.items() if source == "x")

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Number of units of each state; an LSTM's h is as large as its projection, where it has one."""
        h, *others = (self.hidden_size for _ in self.cell.states)
        return (len(self.weights["hr"]) if self.cell is cells.PROJECTED_LSTM else h, *others)

    @property
    def precision(self) -> torch.dtype:
        """What scores are computed in: the type of the weights, but float32 at least."""
        return torch.promote_types(next(iter(self.weights.values())).dtype, torch.float32)

    def gates_of(self, role: str) -> tuple[str, ...]:
        """Return the row blocks of a kernel; a projection (``hr``) has one, which is h."""
        return ("h",) if self.cell is cells.PROJECTED_LSTM and role == "hr" else self.cell.gates

    @property
    def state_kernels(self) -> tuple[str, ...]:
        """The names of the kernels that read a state (``weight_hh``, ``weight_ch``) rather than the input."""
        return tuple(kernel for role, kernel in self.kernels.items() if self.cell.reads[role] != "x")


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
        """What to call the module in a message: its name, or its class where it is the model itself."""
        return self.name or type(self.module).__name__

    @property
    def takes_one_step(self) -> bool:
        """Whether a call of the module is one step, and the loop over time is the user's."""
        return self.entry.runs == "step"

    @property
    def has_own_forward(self) -> bool:
        """Whether the module's class has another ``forward`` than the one that is registered."""
        return type(self.module).forward is not self.entry.kind.forward


def find_recurrent(model: nn.Module) -> list[RecurrentModule]:
    """Find every recurrent module in a model, in the order of ``named_modules``, each once.

    These are nn.RNN, nn.LSTM, nn.GRU, PeepholeLSTM, nn.RNNCell, nn.LSTMCell, nn.GRUCell, and what was given to
    :func:`sparse_rnn.register_cell`. What is inside such a module is part of it.

    Raises:
        UsageError: If the model has none of them, has parameters without values (lazy or on the meta device), or a
            kernel is computed from other parameters.

    Example:
        >>> from torch import nn
        >>> [found.name for found in find_recurrent(nn.Sequential(nn.GRU(3, 4), nn.Linear(4, 2)))]
        ['0']
    """
    found = recurrent_modules(model)
    if not found:
        raise UsageError(
            f"{type(model).__name__} has no recurrent layer: sparse_rnn looks for {known_classes()} and what was given "
            "to register_cell; check that the model is built before pruning."
        )
    return found


def recurrent_modules(model: nn.Module) -> list[RecurrentModule]:
    """Do the same as :func:`find_recurrent`, but return an empty list where the model has no recurrent module."""
    check_initialised(model)
    names: dict[nn.Parameter, str] = {}
    found: list[RecurrentModule] = []
    for name, module in model.named_modules():
        entry = entry_of(module)
        if entry is not None and not any(_is_inside(name, outer.name) for outer in found):
            layers = [
                tuple(_layer(entry, place, names) for place in directions) for directions in entry.places(module, name)
            ]
            found.append(RecurrentModule(name, module, entry, layers))
    return found


def layers_of(recurrent: Sequence[RecurrentModule]) -> list[RecurrentLayer]:
    """List all layers of recurrent modules, in order."""
    return [layer for found in recurrent for directions in found.layers for layer in directions]


def named_layers(recurrent: Sequence[RecurrentModule]) -> dict[str, RecurrentLayer]:
    """Name the layers of recurrent modules, in order, as logs and figures do.

    A layer is called ``<module>.l<depth>``, with ``_reverse`` behind it where it reads the sequence backwards; a cell
    goes by the name of its module alone, or of its class where it is the whole model.

    Example:
        >>> from torch import nn
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


def _is_inside(name: str, outer: str) -> bool:
    return not outer or name.startswith(f"{outer}.")


def _layer(entry: Entry, place: Place, names: dict[nn.Parameter, str]) -> RecurrentLayer:
    """Gather a layer's parameters by their names in the module; ``names`` remembers those in the model."""
    cell = entry.cell(place)
    paths = {role: path for role, path in place.paths(entry.kernels).items() if role in cell.reads}
    weights = plain_parameters(place.module, place.name, paths)
    parameters = dict(place.module.named_parameters(remove_duplicate=False))
    biases = place.paths(entry.biases)
    return RecurrentLayer(
        cell=cell,
        kernels={role: names.setdefault(weights[role], join(place.name, path)) for role, path in paths.items()},
        weights=weights,
        biases={role: parameters[path] for role, path in biases.items() if path in parameters},
        reverse=place.reverse,
    )
