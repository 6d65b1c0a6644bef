"""Finds the recurrent layers of a model and names their kernels and gates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor, nn

from sparse_rnn.recurrent import cells
from sparse_rnn.recurrent.cells import Cell
from sparse_rnn.recurrent.parameters import check_initialised, plain_parameter
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.registry import own_cell, registered

SEQUENCE_MODULES = (nn.RNN, nn.LSTM, nn.GRU, PeepholeLSTM)
CELL_MODULES = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)


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
        """The row blocks of a kernel; a projection (``hr``) has one, which is h."""
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
        layers: For each layer its directions: (forward,) or (forward, reverse).
    """

    name: str
    module: nn.Module
    layers: Sequence[Sequence[RecurrentLayer]]

    @property
    def takes_one_step(self) -> bool:
        """Whether a call of the module is one step, and the loop over time is the user's."""
        return not isinstance(self.module, SEQUENCE_MODULES)


def find_recurrent(model: nn.Module) -> list[RecurrentModule]:
    """Every recurrent module in a model, in the order of ``named_modules``, each once.

    These are nn.RNN, nn.LSTM, nn.GRU, PeepholeLSTM, nn.RNNCell, nn.LSTMCell, nn.GRUCell, and the cells given to
    :func:`sparse_rnn.register_cell`. What is inside such a module is part of it.

    Raises:
        ValueError: If the model has none of them, has parameters without values (lazy or on the meta device), or a
            kernel is computed from other parameters.
    """
    check_initialised(model)
    names: dict[nn.Parameter, str] = {}
    found: list[RecurrentModule] = []
    for name, module in model.named_modules():
        if _is_recurrent(module) and not any(_is_inside(name, outer.name) for outer in found):
            found.append(RecurrentModule(name, module, _layers(name, module, names)))
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no recurrent layer: sparse_rnn looks for nn.RNN, nn.LSTM, nn.GRU, their cells "
            "nn.RNNCell, nn.LSTMCell, nn.GRUCell, PeepholeLSTM, and what was given to register_cell; check that the "
            "model is built before pruning."
        )
    return found


def kernel_gates(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The names of all kernels of a model's recurrent layers, each with its gates (row blocks of equal height)."""
    return {
        kernel: layer.gates_of(role)
        for recurrent in find_recurrent(model)
        for directions in recurrent.layers
        for layer in directions
        for role, kernel in layer.kernels.items()
    }


def state_kernels(model: nn.Module) -> list[str]:
    """The names of the kernels of a model that read a state rather than the input."""
    return [
        kernel
        for recurrent in find_recurrent(model)
        for directions in recurrent.layers
        for layer in directions
        for kernel in layer.state_kernels
    ]


def select_kernels(model: nn.Module, patterns: Sequence[str] | None = None) -> list[str]:
    """The names of the weights to prune.

    Args:
        model: The model.
        patterns: Shell-style patterns over the names of all weight matrices, those of linear layers, convolutions and
            embeddings included; None for the kernels of all recurrent layers.

    Raises:
        ValueError: If a pattern matches nothing, or there is no recurrent layer where no pattern is given.
    """
    if patterns is None:
        return list(kernel_gates(model))
    check_initialised(model)
    recurrent = kernel_gates(model) if has_recurrent(model) else {}
    # A kernel that something else shares goes by its name as a kernel.
    known = {model.get_parameter(kernel): kernel for kernel in recurrent}
    matrices = [known.get(parameter, name) for name, parameter in model.named_parameters() if parameter.dim() > 1]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in matrices):
            raise ValueError(f"kernels={pattern!r} matches none of the model's weights: {', '.join(matrices)}.")
    return [name for name in matrices if any(fnmatchcase(name, pattern) for pattern in patterns)]


def gates_of(model: nn.Module, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The gates (row blocks) of some weights; a weight that is no recurrent kernel is one block, ``all``."""
    recurrent = kernel_gates(model) if has_recurrent(model) else {}
    return {name: recurrent.get(name, ("all",)) for name in names}


def has_recurrent(model: nn.Module) -> bool:
    """Whether a model has a recurrent layer that :func:`find_recurrent` finds."""
    return any(_is_recurrent(module) for module in model.modules())


def _is_recurrent(module: nn.Module) -> bool:
    return isinstance(module, (*SEQUENCE_MODULES, *CELL_MODULES)) or registered(module) is not None


def _is_inside(name: str, outer: str) -> bool:
    return not outer or name.startswith(f"{outer}.")


def _layers(name: str, module: nn.Module, names: dict[nn.Parameter, str]) -> list[tuple[RecurrentLayer, ...]]:
    if known := registered(module):
        weights = _parameters(name, module, known.kernels)
        cell = own_cell(module, known, weights, name)
        return [(_layer(name, module, cell, known.kernels, known.biases, names),)]
    if isinstance(module, CELL_MODULES):
        return [(_standard_layer(name, module, "", names),)]
    suffixes = ("", "_reverse") if module.bidirectional else ("",)
    # An attribute of an nn.Module may be anything to mypy; here it is the number that PyTorch checked.
    return [
        tuple(_standard_layer(name, module, f"_l{depth}{suffix}", names) for suffix in suffixes)
        for depth in range(int(module.num_layers))  # type: ignore[arg-type]
    ]


def _standard_layer(name: str, module: nn.Module, suffix: str, names: dict[nn.Parameter, str]) -> RecurrentLayer:
    cell = _cell(module, suffix)
    kernels = {role: f"weight_{role}{suffix}" for role in cell.reads}
    biases = {role: f"bias_{role}{suffix}" for role in cell.reads}
    return _layer(name, module, cell, kernels, biases, names, reverse=suffix.endswith("_reverse"))


def _layer(
    name: str,
    module: nn.Module,
    cell: Cell,
    kernels: Mapping[str, str],
    biases: Mapping[str, str],
    names: dict[nn.Parameter, str],
    reverse: bool = False,
) -> RecurrentLayer:
    """Gathers a layer's parameters by their names in the module; ``names`` remembers those in the model."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    weights = _parameters(name, module, kernels)
    return RecurrentLayer(
        cell=cell,
        kernels={role: names.setdefault(weights[role], _join(name, path)) for role, path in kernels.items()},
        weights=weights,
        biases={role: parameters[path] for role, path in biases.items() if path in parameters},
        reverse=reverse,
    )


def _parameters(name: str, module: nn.Module, kernels: Mapping[str, str]) -> dict[str, nn.Parameter]:
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return {role: plain_parameter(parameters, path, _join(name, path), module) for role, path in kernels.items()}


def _join(name: str, path: str) -> str:
    return f"{name}.{path}" if name else path


def _cell(module: nn.Module, suffix: str) -> Cell:
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        return cells.GRU
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return cells.PROJECTED_LSTM if getattr(module, "proj_size", 0) else cells.LSTM
    if isinstance(module, (nn.RNN, nn.RNNCell)):
        return cells.RNN_TANH if module.nonlinearity == "tanh" else cells.RNN_RELU
    peephole: Tensor | None = getattr(module, f"peephole{suffix}", None)
    if peephole is None:
        return cells.PEEPHOLE_LSTM
    step = partial(cells.diagonal_peephole_lstm_step, peephole=peephole.detach())
    return replace(cells.LSTM, name="diagonal_peephole_lstm", step=step)
