"""The registry of recurrent modules: for each class its cell, where its kernels are, and what a call of it runs.

The layers of ``torch.nn`` are entries like any other; :func:`register_cell` adds those of one's own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from sparse_rnn.errors import UsageError, check_choice
from sparse_rnn.recurrent import cells
from sparse_rnn.recurrent.cells import Cell, Part, Project, State, Step
from sparse_rnn.recurrent.parameters import plain_parameters
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

OwnStep = Callable[[nn.Module, Project, Tensor, State], State]
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


_ENTRIES: dict[type[nn.Module], Entry] = {}


def register_cell(
    kind: type[nn.Module],
    *,
    step: OwnStep,
    kernels: Mapping[str, str],
    biases: Mapping[str, str] | None = None,
    gates: Sequence[str] = ("h",),
    states: Sequence[str] = ("h",),
    runs: Runs = "step",
) -> None:
    """Make a recurrent cell of one's own known, so that its kernels are found, scored and pruned.

    A cell takes one step when it is called, ``cell(x, state) -> state``, as :class:`torch.nn.GRUCell` and
    :class:`torch.nn.LSTMCell` do: the state is a tensor [B, H], or a tuple of them where there are several; without a
    state it starts from zeros. It may return an output before its state, ``cell(x, state) -> (output, state)``. A
    module that runs a whole sequence itself is called as :class:`torch.nn.GRU` and :class:`torch.nn.LSTM` are,
    ``module(input, state) -> (output, state)``. ``docs/cells.md`` has complete examples.

    Args:
        kind: The class; its subclasses are meant as well.
        step: The equations, ``step(module, project, x, state) -> state``. The state is always a tuple, its first tensor
            is the output. ``project(ih=x, hh=h)`` is ``weight_ih @ x + bias_ih + weight_hh @ h + bias_hh``, under the
            names that ``kernels`` gives them; the kernels must be reached through it only. For JacobianSpectrum each
            is used once, and all else must act on each unit alone. A kernel may read several things side by side, as
            ``project(all=torch.cat([x, h], -1))``; each counts as a kernel of its own then.
        kernels: Name in ``project`` to name of the parameter in the module: ``{"ih": "W_x", "hh": "W_h.weight"}``. The
            first one reads the input. ``{layer}`` and ``{direction}`` in a name stand for the number of the layer and
            for ``_reverse`` in the second direction, in modules that have ``num_layers`` and ``bidirectional``.
        biases: Name in ``project`` to name of the bias; those that a module lacks are left out.
        gates: Names of the row blocks that every kernel has.
        states: Names of the state tensors.
        runs: What a call runs: one ``step``, or a whole ``sequence`` [T, B, I] ([B, T, I] where the module has
            ``batch_first``).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> class Leaky(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.W, self.U = nn.Parameter(torch.rand(4, 3)), nn.Parameter(torch.rand(4, 4))
        ...
        ...     def forward(self, x, h):
        ...         return 0.9 * h + 0.1 * torch.tanh(x @ self.W.T + h @ self.U.T)
        >>> def leaky_step(cell, project, x, state):
        ...     (h,) = state
        ...     return (0.9 * h + 0.1 * torch.tanh(project(ih=x, hh=h)),)
        >>> register_cell(Leaky, step=leaky_step, kernels={"ih": "W", "hh": "U"})
        >>> from sparse_rnn.recurrent import find_targets
        >>> list(find_targets(Leaky()))
        ['W', 'U']
    """
    check_choice("runs", runs, Runs)
    known = _Equations(step, dict(kernels), tuple(gates), tuple(states))
    _ENTRIES[kind] = Entry(kind, partial(_own_cell, known), known.kernels, dict(biases or {}), runs, own=True)


def entry_of(module: nn.Module) -> Entry | None:
    """Return the entry of a module's class, or of the nearest of its base classes; None if there is none."""
    return next((_ENTRIES[kind] for kind in type(module).__mro__ if kind in _ENTRIES), None)


def known_classes() -> str:
    """Name the registered classes, for messages."""
    return ", ".join(kind.__name__ for kind in _ENTRIES)


@dataclass(frozen=True)
class _Equations:
    """What :func:`register_cell` was told of a cell."""

    step: OwnStep
    kernels: Mapping[str, str]
    gates: tuple[str, ...]
    states: tuple[str, ...]


def _own_cell(known: _Equations, place: Place) -> Cell:
    """Find out about the cell of a registered module by taking one step of it on made-up numbers.

    Raises:
        UsageError: If the step and the kernels do not fit each other.
    """
    kind = type(place.module).__name__
    weights = plain_parameters(place.module, place.name, place.paths(known.kernels))
    rows = {role: len(weight) for role, weight in weights.items()}
    if len(set(rows.values())) > 1 or next(iter(rows.values())) % len(known.gates):
        raise UsageError(
            f"The kernels of {place.name or kind} have {rows} rows: give all of them the same number, a multiple of "
            f"its {len(known.gates)} gates, in register_cell({kind}, kernels=, gates=)."
        )
    step = partial(known.step, place.module)
    inputs = _input_size(step, known, weights)
    parts = _parts(step, known, weights, inputs)
    if parts:
        step = partial(_step_in_parts, step, parts)
    known_parts = {
        part: Part(role, columns=columns) for role, found in parts.items() for part, columns in found.items()
    }
    reads, elementwise = _try_out(step, known, weights, kind, inputs, known_parts)
    return Cell(kind, known.gates, known.states, reads, step, elementwise, known_parts)


def _made_up(like: Tensor, size: int, seed: float) -> Tensor:
    numbers = torch.sin(seed * torch.arange(1, size + 1, dtype=torch.float64)).unsqueeze(0)
    return numbers.to(like.device, torch.promote_types(like.dtype, torch.float32)).requires_grad_()


def _given(known: _Equations, weights: Mapping[str, Tensor], inputs: int) -> tuple[Tensor, State]:
    """Make up an input and a state of one sample."""
    first = next(iter(weights.values()))
    units = len(first) // len(known.gates)
    state = tuple(_made_up(first, units, 2.0 + index) for index, _ in enumerate(known.states))
    return _made_up(first, inputs, 1.0), state


def _values_read(step: Step, known: _Equations, weights: Mapping[str, Tensor], inputs: int) -> dict[str, Tensor]:
    """Take one step on what is made up, and return what each kernel reads."""
    first, read = next(iter(weights.values())), {}

    def project(**values: Tensor) -> Tensor:
        read.update(values)
        return _made_up(first, len(first), 0.5 + len(read))

    step(project, *_given(known, weights, inputs))
    return read


def _input_size(step: Step, known: _Equations, weights: Mapping[str, Tensor]) -> int:
    """Find the size of the input: the columns of the first kernel, less the states that it reads beside the input."""
    rows, columns = next(iter(weights.values())).shape
    for states in range(1, len(known.states) + 1):
        inputs = columns - states * (rows // len(known.gates))
        if inputs <= 0:
            break
        with suppress(Exception):  # a step may fail in any way where the sizes do not fit
            read = _values_read(step, known, weights, inputs)
            if read and all(
                role in weights and value.shape[-1] == weights[role].shape[1] for role, value in read.items()
            ):
                return inputs
    return columns


def _parts(step: Step, known: _Equations, weights: Mapping[str, Tensor], inputs: int) -> dict[str, dict[str, slice]]:
    """Find the kernels that read several things side by side, and what each part of them is called: ``all[0]``."""
    x, state = _given(known, weights, inputs)
    units, found = state[0].shape[-1], {}
    if inputs == next(iter(weights.values())).shape[1]:
        return {}
    for role, value in _values_read(step, known, weights, inputs).items():
        edges = [0]
        while edges[-1] < value.shape[-1]:
            rest = value[:, edges[-1] :]
            sizes = (len(part[0]) for part in (x, *state) if torch.equal(rest[:, : part.shape[-1]], part))
            edges.append(min(edges[-1] + next(sizes, units), value.shape[-1]))
        if len(edges) > 2:
            found[role] = {f"{role}[{n}]": slice(*ends) for n, ends in enumerate(pairwise(edges))}
    return found


def _step_in_parts(
    step: Step, parts: Mapping[str, Mapping[str, slice]], project: Project, x: Tensor, state: State
) -> State:
    """Take a step whose kernels over things side by side are asked for part by part."""

    def whole(**inputs: Tensor) -> Tensor:
        asked: dict[str, Tensor] = {}
        for role, value in inputs.items():
            if role in parts:
                asked |= {part: value[..., columns] for part, columns in parts[role].items()}
            else:
                asked[role] = value
        return project(**asked)

    return step(whole, x, state)


def _try_out(
    step: Step,
    known: _Equations,
    weights: Mapping[str, Tensor],
    kind: str,
    inputs: int,
    parts: Mapping[str, Part],
) -> tuple[dict[str, str], bool]:
    """Find out what each kernel reads, and whether all else in a step is elementwise."""
    first = next(iter(weights.values()))
    rows, units = len(first), len(first) // len(known.gates)
    x, state = _given(known, weights, inputs)
    sources = {"x": x, **dict(zip(known.states, state, strict=True))}
    read: list[tuple[str, Tensor]] = []
    made: list[Tensor] = []

    def project(**inputs: Tensor) -> Tensor:
        for role in inputs.keys() - weights.keys() - parts.keys():
            raise UsageError(
                f"The step of {kind} calls project({role}=...), but {role!r} is not among "
                f"kernels={dict(known.kernels)}: name its parameter in register_cell({kind}, kernels=)."
            )
        read.extend(inputs.items())
        made.append(_made_up(first, rows, 1.5 + len(made)))
        return made[-1]

    with torch.enable_grad():
        new = step(project, x, state)
    if len(new) != len(state) or any(tensor.shape != (1, units) for tensor in new):
        raise UsageError(
            f"The step of {kind} gives states of shape {[tuple(tensor.shape) for tensor in new]} for one sample of "
            f"{units} units, states={known.states}: it must give a tuple of one [B, H] tensor for each of them."
        )

    def source_of(role: str, value: Tensor) -> str:
        same = torch.equal if role in parts else operator.is_
        return next((source for source, tensor in sources.items() if same(tensor, value)), "an intermediate")

    reads = {role: source_of(role, value) for role, value in read}
    for role in weights.keys() - {parts[role].kernel if role in parts else role for role in reads}:
        raise UsageError(f"The step of {kind} never calls project({role}=...): take it from kernels=.")
    each_once = len(read) == len(reads)
    # A part that is a source acts on nothing; the derivative of a part by what is beside it is 0, not none.
    computed = [value for role, value in read if not (role in parts and reads[role] in sources)]
    return reads, each_once and _acts_on_each_unit_alone([*new, *computed], [*made, *state])


def _acts_on_each_unit_alone(new: Sequence[Tensor], old: Sequence[Tensor]) -> bool:
    """Tell whether scaling the cotangent of a unit scales the gradients of that unit's inputs, and of no other's."""
    for output in (tensor for tensor in new if tensor.requires_grad):
        scale = torch.cos(torch.arange(output.shape[-1], dtype=torch.float64)).to(output).unsqueeze(0)
        ones, scaled = (
            torch.autograd.grad(output, old, cotangent, retain_graph=True, allow_unused=True)
            for cotangent in (torch.ones_like(output), scale)
        )
        for one, other in zip(ones, scaled, strict=True):
            if one is None:
                continue
            blocks, rest = divmod(one.shape[-1], output.shape[-1])
            if rest or not torch.allclose(one * scale.repeat(1, blocks), other, rtol=1e-3, atol=1e-5):
                return False
    return True


def _gru(place: Place) -> Cell:
    return cells.GRU


def _reset_before_gru(place: Place) -> Cell:
    return cells.GRU_RESET_BEFORE


def _lstm(place: Place) -> Cell:
    return cells.PROJECTED_LSTM if getattr(place.module, "proj_size", 0) else cells.LSTM


def _rnn(place: Place) -> Cell:
    return cells.RNN_TANH if place.module.nonlinearity == "tanh" else cells.RNN_RELU


def _peephole_lstm(place: Place) -> Cell:
    peephole: Tensor | None = getattr(place.module, place.path("peephole_l{layer}{direction}"), None)
    return cells.PEEPHOLE_LSTM if peephole is None else cells.diagonal_peephole_lstm(peephole.detach())


def _register_standard(kind: type[nn.Module], cell: Callable[[Place], Cell], runs: Runs) -> None:
    """Register a class that names its parameters as ``torch.nn`` does."""
    suffix = "_l{layer}{direction}" if runs == "sequence" else ""
    kernels, biases = (
        {role: f"{what}_{role}{suffix}" for role in ("ih", "hh", "ch", "hr")} for what in ("weight", "bias")
    )
    _ENTRIES[kind] = Entry(kind, cell, kernels, biases, runs)


_register_standard(nn.RNN, _rnn, "sequence")
_register_standard(nn.LSTM, _lstm, "sequence")
_register_standard(nn.GRU, _gru, "sequence")
_register_standard(nn.RNNCell, _rnn, "step")
_register_standard(nn.LSTMCell, _lstm, "step")
_register_standard(nn.GRUCell, _gru, "step")
_register_standard(PeepholeLSTM, _peephole_lstm, "sequence")
_register_standard(ResetBeforeGRU, _reset_before_gru, "sequence")
