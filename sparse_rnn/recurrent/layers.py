"""The recurrent modules of a model, and what their layers are made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent import cells
from sparse_rnn.recurrent.cells import Cell
from sparse_rnn.recurrent.entries import Entry, Place
from sparse_rnn.recurrent.parameters import LiveTensors, check_initialised, join, plain_parameters
from sparse_rnn.recurrent.registry import entry_of, known_classes

RECURRENT_BASES = (nn.RNNBase, nn.RNNCellBase)


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


def find_recurrent(model: nn.Module, left_out: Collection[str] = ()) -> list[RecurrentModule]:
    """Find every recurrent module in a model, in the order of ``named_modules``, each once.

    These are nn.RNN, nn.LSTM, nn.GRU, PeepholeLSTM, ResetBeforeGRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell, and what was
    given to :func:`sparse_rnn.register_cell`. What is inside such a module is part of it.

    Args:
        model: The model.
        left_out: Names of modules that are not looked at.

    Raises:
        UsageError: If the model has none of them, has parameters without values (lazy or on the meta device), or a
            kernel is computed from other parameters.

    Example:
        >>> from torch import nn
        >>> [found.name for found in find_recurrent(nn.Sequential(nn.GRU(3, 4), nn.Linear(4, 2)))]
        ['0']
    """
    found = recurrent_modules(model, left_out=left_out)
    if not found:
        raise UsageError(
            f"{type(model).__name__} has no recurrent layer: sparse_rnn looks for {known_classes()} and what was given "
            "to register_cell; check that the model is built before pruning, or name the weights to prune in kernels=, "
            "which takes those of any layer. " + " ".join(unknown_recurrent(model))
        )
    return found


def unknown_recurrent(model: nn.Module) -> list[str]:
    """Say, in a sentence for each, what to do about parts that are recurrent but of no class that is known."""
    known = registered_modules(model)
    sentences: list[str] = []
    for name, module in model.named_modules():
        if name in known or any(_is_inside(name, outer) for outer in known):
            continue
        scripted = getattr(module, "original_name", None) if isinstance(module, torch.jit.ScriptModule) else None
        if scripted in {kind.__name__ for kind in RECURRENT_BASES} | set(known_classes().split(", ")):
            sentences.append(
                f"{name or 'The model'} is a scripted {scripted}, which runs where nobody can look: prune before "
                "torch.jit.script."
            )
        elif isinstance(module, RECURRENT_BASES):
            kind = type(module).__name__
            sentences.append(
                f"{name or 'The model'} ({kind}) is recurrent: give {kind} and its equations to register_cell."
            )
    return sentences


def recurrent_modules(
    model: nn.Module, wanted: Callable[[str], bool] | None = None, left_out: Collection[str] = ()
) -> list[RecurrentModule]:
    """Do the same as :func:`find_recurrent`, but return an empty list where the model has no recurrent module.

    Args:
        model: The model.
        wanted: Tells by its name whether a kernel is; modules that hold none that is are not looked at. All of them if
            not given.
        left_out: Names of modules that are not looked at either.
    """
    if wanted is None:
        check_initialised(model.named_parameters())
    names = kernel_names(model)
    found: list[RecurrentModule] = []
    for name, (module, entry) in registered_modules(model).items():
        if name in left_out or not (wanted is None or any(map(wanted, _kernels_of(name, module, entry, names)))):
            continue
        found.append(_described(name, module, entry, names))
    return found


def describable_modules(model: nn.Module) -> list[RecurrentModule]:
    """Do the same as :func:`recurrent_modules`, but pass over those that cannot be pruned."""
    names = kernel_names(model)
    found: list[RecurrentModule] = []
    for name, (module, entry) in registered_modules(model).items():
        with suppress(UsageError):
            found.append(_described(name, module, entry, names))
    return found


def _described(name: str, module: nn.Module, entry: Entry, names: Mapping[nn.Parameter, str]) -> RecurrentModule:
    check_initialised((join(name, path), parameter) for path, parameter in module.named_parameters())
    layers = [tuple(_layer(entry, place, names) for place in directions) for directions in entry.places(module, name)]
    return RecurrentModule(name, module, entry, layers)


def registered_modules(model: nn.Module) -> dict[str, tuple[nn.Module, Entry]]:
    """Name the modules of a model that the registry knows; what is inside such a module is part of it."""
    found: dict[str, tuple[nn.Module, Entry]] = {}
    for name, module in model.named_modules():
        entry = entry_of(module)
        if entry is not None and not any(_is_inside(name, outer) for outer in found):
            found[name] = module, entry
    return found


def kernel_names(model: nn.Module) -> dict[nn.Parameter, str]:
    """Give each recurrent kernel the name that it was found under first."""
    names: dict[nn.Parameter, str] = {}
    for name, (module, entry) in registered_modules(model).items():
        parameters = dict(module.named_parameters(remove_duplicate=False))
        for path in _kernel_paths(name, module, entry):
            if path in parameters:
                names.setdefault(parameters[path], join(name, path))
    return names


def _kernel_paths(name: str, module: nn.Module, entry: Entry) -> Iterator[str]:
    for directions in entry.places(module, name):
        for place in directions:
            yield from place.paths(entry.kernels).values()


def _kernels_of(name: str, module: nn.Module, entry: Entry, names: Mapping[nn.Parameter, str]) -> Iterator[str]:
    """Yield the names of a module's kernels; those that are no parameters go by the name that they would have."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for path in _kernel_paths(name, module, entry):
        yield names[parameters[path]] if path in parameters else join(name, path)


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


def _layer(entry: Entry, place: Place, names: Mapping[nn.Parameter, str]) -> RecurrentLayer:
    """Gather a layer's parameters by their names in the module; ``names`` has those in the model."""
    cell = entry.cell(place)
    paths = {role: path for known, path in place.paths(entry.kernels).items() for role in cell.roles_of(known)}
    biases = {known: path for known, path in place.paths(entry.biases).items() if cell.roles_of(known)}
    parameters = plain_parameters(place.module, place.name, paths)
    return RecurrentLayer(
        cell=cell,
        kernels={role: names[parameters[role]] for role, path in paths.items()},
        parameters=parameters,
        whole_biases=LiveTensors(place.module, biases),
        reverse=place.reverse,
    )
