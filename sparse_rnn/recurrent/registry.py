"""Recurrent cells of one's own: their equations, where their kernels are, and what these read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sparse_rnn.recurrent.cells import Cell, Project, State, Step

OwnStep = Callable[[nn.Module, Project, Tensor, State], State]


@dataclass(frozen=True)
class Registered:
    """What :func:`register_cell` was told of a class of cells."""

    step: OwnStep
    kernels: Mapping[str, str]
    biases: Mapping[str, str]
    gates: tuple[str, ...]
    states: tuple[str, ...]


_REGISTERED: dict[type[nn.Module], Registered] = {}


def register_cell(
    kind: type[nn.Module],
    *,
    step: OwnStep,
    kernels: Mapping[str, str],
    biases: Mapping[str, str] | None = None,
    gates: Sequence[str] = ("h",),
    states: Sequence[str] = ("h",),
) -> None:
    """Makes a recurrent cell of one's own known, so that its kernels are found, scored and pruned.

    A cell takes one step when it is called, ``cell(x, state) -> state``, as :class:`torch.nn.GRUCell` and
    :class:`torch.nn.LSTMCell` do: the state is a tensor [B, H], or a tuple of them where there are several; without a
    state it starts from zeros. See ``docs/cells.md`` for a complete example.

    Args:
        kind: The class; its subclasses are meant as well.
        step: The equations, ``step(cell, project, x, state) -> state``. The state is always a tuple, its first tensor
            is the output. ``project(ih=x, hh=h)`` is ``weight_ih @ x + bias_ih + weight_hh @ h + bias_hh``, under the
            names that ``kernels`` gives them; the kernels must be reached through it only. For JacobianSpectrum each
            is used once, and all else must act on each unit alone.
        kernels: Name in ``project`` to name of the parameter in the module: ``{"ih": "W_x", "hh": "W_h.weight"}``. The
            first one reads the input.
        biases: Name in ``project`` to name of the bias; those that a module lacks are left out.
        gates: Names of the row blocks that every kernel has.
        states: Names of the state tensors.
    """
    _REGISTERED[kind] = Registered(step, dict(kernels), dict(biases or {}), tuple(gates), tuple(states))


def registered(module: nn.Module) -> Registered | None:
    """What is known of a module's class, or of the nearest of its base classes."""
    return next((_REGISTERED[kind] for kind in type(module).__mro__ if kind in _REGISTERED), None)


def own_cell(module: nn.Module, known: Registered, weights: Mapping[str, Tensor], name: str) -> Cell:
    """The cell of a registered module, found out by taking one step of it on made-up numbers.

    Raises:
        ValueError: If the step and the kernels do not fit each other.
    """
    kind = type(module).__name__
    rows = {role: len(weight) for role, weight in weights.items()}
    if len(set(rows.values())) > 1 or next(iter(rows.values())) % len(known.gates):
        raise ValueError(
            f"The kernels of {name or kind} have {rows} rows: give all of them the same number, a multiple of its "
            f"{len(known.gates)} gates, in register_cell({kind}, kernels=, gates=)."
        )
    step = partial(known.step, module)
    reads, elementwise = _try_out(step, known, weights, kind)
    return Cell(kind, known.gates, known.states, reads, step, elementwise)


def _try_out(step: Step, known: Registered, weights: Mapping[str, Tensor], kind: str) -> tuple[dict[str, str], bool]:
    """What each kernel reads, and whether all else in a step is elementwise."""
    first = next(iter(weights.values()))
    rows, units = len(first), len(first) // len(known.gates)

    def made_up(size: int, seed: float) -> Tensor:
        numbers = torch.sin(seed * torch.arange(1, size + 1, dtype=torch.float64)).unsqueeze(0)
        return numbers.to(first.device, torch.promote_types(first.dtype, torch.float32)).requires_grad_()

    state = tuple(made_up(units, 2.0 + index) for index, _ in enumerate(known.states))
    x = made_up(first.shape[1], 1.0)
    sources = {"x": x, **dict(zip(known.states, state, strict=True))}
    read: list[tuple[str, Tensor]] = []
    made: list[Tensor] = []

    def project(**inputs: Tensor) -> Tensor:
        for role in inputs.keys() - weights.keys():
            raise ValueError(
                f"The step of {kind} calls project({role}=...), but {role!r} is not among "
                f"kernels={dict(known.kernels)}: name its parameter in register_cell({kind}, kernels=)."
            )
        read.extend(inputs.items())
        made.append(made_up(rows, 1.5 + len(made)))
        return made[-1]

    with torch.enable_grad():
        new = step(project, x, state)
    if len(new) != len(state) or any(tensor.shape != (1, units) for tensor in new):
        raise ValueError(
            f"The step of {kind} gives states of shape {[tuple(tensor.shape) for tensor in new]} for one sample of "
            f"{units} units, states={known.states}: it must give a tuple of one [B, H] tensor for each of them."
        )
    reads = {
        role: next((source for source, tensor in sources.items() if tensor is value), "an intermediate")
        for role, value in read
    }
    for role in weights.keys() - reads.keys():
        raise ValueError(f"The step of {kind} never calls project({role}=...): take it from kernels=.")
    each_once = len(read) == len(reads)
    return reads, each_once and _acts_on_each_unit_alone([*new, *(value for _, value in read)], [*made, *state])


def _acts_on_each_unit_alone(new: Sequence[Tensor], old: Sequence[Tensor]) -> bool:
    """Whether scaling the cotangent of a unit scales the gradients of that unit's inputs, and of no other's."""
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
