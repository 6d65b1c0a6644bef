"""What is found out about a cell that a user has registered, by taking one step of it on made-up numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.cells import Cell, Part, Project, State, Step
from sparse_rnn.recurrent.entries import Place
from sparse_rnn.recurrent.parameters import plain_parameters

OwnStep = Callable[[nn.Module, Project, Tensor, State], State]


@dataclass(frozen=True)
class Equations:
    """What :func:`~sparse_rnn.recurrent.register_cell` was told of a cell."""

    step: OwnStep
    kernels: Mapping[str, str]
    gates: tuple[str, ...]
    states: tuple[str, ...]


def own_cell(known: Equations, place: Place) -> Cell:
    """Find out about the cell of a registered module by taking one step of it on made-up numbers.

    Raises:
        UsageError: If the step and the kernels do not fit each other.
    """
    kind = type(place.module).__name__
    weights = plain_parameters(place.module, place.name, place.paths(known.kernels))
    vectors = [known.kernels[role] for role, weight in weights.items() if weight.dim() != 2]
    if vectors:
        raise UsageError(
            f"{', '.join(vectors)} of {place.name or kind} is no matrix, and so no kernel: leave it out of "
            f"register_cell({kind}, kernels=), and use it in the step."
        )
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


def _given(known: Equations, weights: Mapping[str, Tensor], inputs: int) -> tuple[Tensor, State]:
    """Make up an input and a state of one sample."""
    first = next(iter(weights.values()))
    units = len(first) // len(known.gates)
    state = tuple(_made_up(first, units, 2.0 + index) for index, _ in enumerate(known.states))
    return _made_up(first, inputs, 1.0), state


def _values_read(step: Step, known: Equations, weights: Mapping[str, Tensor], inputs: int) -> dict[str, Tensor]:
    """Take one step on what is made up, and return what each kernel reads."""
    first, read = next(iter(weights.values())), {}

    def project(**values: Tensor) -> Tensor:
        read.update(values)
        return _made_up(first, len(first), 0.5 + len(read))

    step(project, *_given(known, weights, inputs))
    return read


def _input_size(step: Step, known: Equations, weights: Mapping[str, Tensor]) -> int:
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


def _parts(step: Step, known: Equations, weights: Mapping[str, Tensor], inputs: int) -> dict[str, dict[str, slice]]:
    """Find the kernels that read several things side by side, and what each part of them is called: ``all[0]``."""
    x, state = _given(known, weights, inputs)
    units, found = state[0].shape[-1], {}
    for role, value in _values_read(step, known, weights, inputs).items():
        edges, sources = [0], 0
        while edges[-1] < value.shape[-1]:
            rest = value[:, edges[-1] :]
            sizes = [part.shape[-1] for part in (x, *state) if torch.equal(rest[:, : part.shape[-1]], part)]
            sources += bool(sizes)
            edges.append(min(edges[-1] + next(iter(sizes), units), value.shape[-1]))
        if len(edges) > 2 and sources:
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
    known: Equations,
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
    if not (isinstance(new, (tuple, list)) and all(isinstance(part, Tensor) for part in new)):
        raise UsageError(
            f"The step of {kind} gives a {type(new).__name__}: it must give a tuple of one [B, H] tensor for each of "
            f"states={known.states}."
        )
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
