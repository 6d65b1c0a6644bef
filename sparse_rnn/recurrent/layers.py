"""Finds the recurrent layers of a model and names their kernels and gates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

from torch import Tensor, nn

from sparse_rnn.recurrent import cells
from sparse_rnn.recurrent.cells import Cell
from sparse_rnn.recurrent.peephole import PeepholeLSTM

RECURRENT = (nn.RNN, nn.LSTM, nn.GRU, PeepholeLSTM)


@dataclass(frozen=True)
class RecurrentLayer:
    """One layer of a recurrent module in one direction.

    Attributes:
        cell: Its cell.
        kernels: Role (``"ih"``, ``"hh"``, ``"ch"``) to the kernel's parameter name in the whole model.
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
        return self.weights["hh"].shape[1]

    @property
    def input_size(self) -> int:
        """Number of inputs, I."""
        return self.weights["ih"].shape[1]

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


def find_recurrent(model: nn.Module) -> list[RecurrentModule]:
    """Every nn.RNN, nn.LSTM, nn.GRU and PeepholeLSTM in a model, in the order of ``named_modules``.

    Raises:
        ValueError: If the model has none of them, or one has a projection (``proj_size``).
    """
    found = [
        RecurrentModule(name, module, _layers(name, module))
        for name, module in model.named_modules()
        if isinstance(module, RECURRENT)
    ]
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no recurrent layer: sparse_rnn looks for nn.RNN, nn.LSTM, nn.GRU and "
            "PeepholeLSTM modules; check that the model is built before pruning."
        )
    return found


def kernel_gates(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The names of all kernels of a model's recurrent layers, each with its gates (row blocks of equal height)."""
    return {
        kernel: layer.cell.gates
        for recurrent in find_recurrent(model)
        for directions in recurrent.layers
        for layer in directions
        for kernel in layer.kernels.values()
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
    matrices = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
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
    return any(isinstance(module, RECURRENT) for module in model.modules())


def _layers(name: str, module: nn.Module) -> list[tuple[RecurrentLayer, ...]]:
    if getattr(module, "proj_size", 0):
        raise ValueError(f"{name or type(module).__name__} has proj_size={module.proj_size}: it is not supported yet.")
    suffixes = ("", "_reverse") if module.bidirectional else ("",)
    return [
        tuple(_layer(name, module, f"l{depth}{suffix}", reverse=bool(suffix)) for suffix in suffixes)
        for depth in range(int(module.num_layers))  # type: ignore[arg-type]
    ]


def _layer(name: str, module: nn.Module, suffix: str, reverse: bool) -> RecurrentLayer:
    cell = _cell(module, suffix)
    parameters = dict(module.named_parameters(recurse=False))
    prefix = f"{name}." if name else ""
    return RecurrentLayer(
        cell=cell,
        kernels={role: f"{prefix}weight_{role}_{suffix}" for role in cell.reads},
        weights={role: parameters[f"weight_{role}_{suffix}"] for role in cell.reads},
        biases={
            role: parameters[f"bias_{role}_{suffix}"] for role in cell.reads if f"bias_{role}_{suffix}" in parameters
        },
        reverse=reverse,
    )


def _cell(module: nn.Module, suffix: str) -> Cell:
    if isinstance(module, nn.GRU):
        return cells.GRU
    if isinstance(module, nn.LSTM):
        return cells.LSTM
    if isinstance(module, nn.RNN):
        return cells.RNN_TANH if module.nonlinearity == "tanh" else cells.RNN_RELU
    peephole: Tensor | None = getattr(module, f"peephole_{suffix}", None)
    if peephole is None:
        return cells.PEEPHOLE_LSTM
    step = partial(cells.diagonal_peephole_lstm_step, peephole=peephole.detach())
    return replace(cells.LSTM, name="diagonal_peephole_lstm", step=step)
