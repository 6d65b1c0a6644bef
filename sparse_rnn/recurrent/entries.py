"""What is known of a class of recurrent modules, and what is known of those of ``torch.nn`` and of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor, nn

from sparse_rnn.recurrent import cells
from sparse_rnn.recurrent.cells import Cell, Project, State
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

Runs = Literal["step", "sequence"]


@dataclass(frozen=True)
class Place:
    """One layer of a recurrent module in one direction.

    Attributes:
        module: The module.
        name: Its name in the whole model, for messages; empty for the model itself.
        layer: Number of the layer, from the input upwards.
        reverse: Whether it runs from the last step to the first.
    """

    module: nn.Module
    name: str
    layer: int = 0
    reverse: bool = False

    def path(self, pattern: str) -> str:
        """Fill a pattern of parameter names such as ``weight_hh_l{layer}{direction}``, as ``torch.nn`` names them."""
        return pattern.format(layer=self.layer, direction="_reverse" if self.reverse else "")

    def paths(self, patterns: Mapping[str, str]) -> dict[str, str]:
        """Fill one pattern for each role."""
        return {role: self.path(pattern) for role, pattern in patterns.items()}


@dataclass(frozen=True)
class Entry:
    """What is known of a class of recurrent modules.

    Attributes:
        kind: The class.
        cell: Gives the cell of a layer.
        kernels: Role to the pattern of the kernel's name in the module (see :meth:`Place.path`); those that the cell
            does not have are left out.
        biases: Likewise for the biases; those that a module lacks are left out.
        runs: What a call runs: ``step``, one step of a loop of the user's, or ``sequence``.
        own: Whether the user registered it, so that its equations have to be checked against its ``forward``.
    """

    kind: type[nn.Module]
    cell: Callable[[Place], Cell]
    kernels: Mapping[str, str]
    biases: Mapping[str, str]
    runs: Runs
    own: bool = False

    def places(self, module: nn.Module, name: str) -> list[list[Place]]:
        """List the layers of a module from the input upwards, each with its directions."""
        directions = (False, True) if getattr(module, "bidirectional", False) else (False,)
        layers = int(getattr(module, "num_layers", 1)) if self.runs == "sequence" else 1
        return [[Place(module, name, layer, reverse) for reverse in directions] for layer in range(layers)]


def _gru(place: Place) -> Cell:
    return cells.GRU


def _reset_before_gru(place: Place) -> Cell:
    return cells.GRU_RESET_BEFORE


def _lstm(place: Place) -> Cell:
    return cells.PROJECTED_LSTM if getattr(place.module, "proj_size", 0) else cells.LSTM


def _rnn(place: Place) -> Cell:
    return cells.RNN_TANH if place.module.nonlinearity == "tanh" else cells.RNN_RELU


def _peephole_lstm(place: Place) -> Cell:
    name = place.path("peephole_l{layer}{direction}")
    if getattr(place.module, name, None) is None:
        return cells.PEEPHOLE_LSTM
    return replace(cells.LSTM, name="diagonal_peephole_lstm", step=partial(_diagonal_step, place.module, name))


def _diagonal_step(module: nn.Module, peephole: str, project: Project, x_BI: Tensor, state: State) -> State:
    """Take a step with the peepholes that a module has by now, as it has its kernels and biases."""
    return cells.diagonal_peephole_lstm_step(project, x_BI, state, peephole=getattr(module, peephole).detach())


def _standard(kind: type[nn.Module], cell: Callable[[Place], Cell], runs: Runs) -> Entry:
    """Make the entry of a class that names its parameters as ``torch.nn`` does."""
    suffix = "_l{layer}{direction}" if runs == "sequence" else ""
    kernels, biases = (
        {role: f"{what}_{role}{suffix}" for role in ("ih", "hh", "ch", "hr")} for what in ("weight", "bias")
    )
    return Entry(kind, cell, kernels, biases, runs)


SHIPPED = [
    _standard(nn.RNN, _rnn, "sequence"),
    _standard(nn.LSTM, _lstm, "sequence"),
    _standard(nn.GRU, _gru, "sequence"),
    _standard(nn.RNNCell, _rnn, "step"),
    _standard(nn.LSTMCell, _lstm, "step"),
    _standard(nn.GRUCell, _gru, "step"),
    _standard(PeepholeLSTM, _peephole_lstm, "sequence"),
    _standard(ResetBeforeGRU, _reset_before_gru, "sequence"),
]
