"""The contract of every criterion for units, and the way from a model to a plan."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sparse_rnn.checks import check_flag, check_number, check_whole
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured.declared import Declared
from sparse_rnn.pruning.structured.groups import UnitGroup, find_groups
from sparse_rnn.pruning.structured.moments import Moments, collect_moments, moment_name
from sparse_rnn.pruning.structured.readers import find_readers, tied_notes
from sparse_rnn.pruning.structured.reconstruction import information_loss, reconstruction
from sparse_rnn.pruning.structured.units import Plan, Reader, UnitPlan
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.layers import RecurrentModule, named_layers

Units = int | float | Mapping[str, int | float]


@dataclass(frozen=True)
class UnitCriterion(ABC):
    """Choose the units of recurrent layers that stay, and plan what becomes of the weights around them.

    Args:
        units: How many units of each layer and direction stay: a number; a share of those that there are, above 0 and
            at most 1.0; or either by the name of the recurrent module, where modules that are not named stay as they
            are. All layers and directions of a module keep as many, as it has one ``hidden_size``, but not the same.
        reconstruct: Whether all that reads the units is multiplied by the reconstruction matrix, so that the kept units
            stand in for the removed ones as well as they can; if not, the removed ones are just left out.
        regularisation: λ of the reconstruction, in the units of a second moment.
    """

    units: Units
    reconstruct: bool = True
    regularisation: float = 1e-6

    needs_data: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_flag("reconstruct", self.reconstruct)
        check_number("regularisation", self.regularisation, "[0, inf)")
        check_units("units", self.units)

    @abstractmethod
    def choose(self, group: UnitGroup, count: int, moments: Moments) -> Tensor:
        """Choose units.

        Args:
            group: The units, and the weights that make and read them.
            count: How many stay, k.
            moments: Second moments by name; empty unless the criterion ``needs_data`` or reconstructs.

        Returns:
            The kept units, [k], in any order.
        """

    def tau(self, group: UnitGroup, kept: Tensor, moments: Moments) -> Tensor:
        """Return the regularisation τ of each kept unit, [k]: λ for all of them, unless a criterion says otherwise."""
        return torch.full((len(kept),), float(self.regularisation), dtype=torch.float64, device=kept.device)

    def plan(
        self,
        model: nn.Module,
        data: Any,
        loss_fn: LossFn | None = None,
        readers: Declared | None = None,
    ) -> Plan:
        """Plan which units of a model's recurrent layers stay; the model is left as it was.

        Args:
            model: The model.
            data: A batch that the model takes, one tensor, a tuple of positional or a dictionary of keyword arguments;
                or a DataLoader or an iterator of such batches. In a distributed run every rank gives its own.
            loss_fn: ``loss_fn(model, batch)`` runs the model on a batch, as far as its units are read. Where it is
                given, batches may be anything that it understands.
            readers: Name of a recurrent module to the modules or parameters that read its outputs, where that cannot be
                seen: ``{"rnn": ["head"]}``; an empty list where nothing but the module's caller does.

        Returns:
            The plan, for :func:`sparse_rnn.pruning.structured.shrink`.

        Raises:
            UsageError: If a number of units does not fit, or units are read by something that cannot follow.
        """
        recurrent = find_recurrent(model)
        sizes = sizes_wanted(self.units, recurrent)
        first, batches = batches_of(data)
        wanted = layers_of_modules(recurrent, sizes)
        links = find_readers(model, recurrent, wanted, first, loss_fn, readers)
        groups = find_groups(model, recurrent, wanted, links)
        check_read(groups, recurrent, readers)
        moments: Moments = {}
        if self.needs_data or self.reconstruct:
            moments = collect_moments(model, recurrent, groups, batches, loss_fn)
        plans = tuple(self._plan_group(group, _count(group, recurrent, sizes), moments) for group in groups)
        return Plan(plans, sizes, tuple(tied_notes(links)))

    def _plan_group(self, group: UnitGroup, count: int, moments: Moments) -> UnitPlan:
        kept = self.choose(group, count, moments).sort().values
        if not moments:
            return UnitPlan(tuple(group.layers), group.units, kept, group.writers, group.readers)
        tau = self.tau(group, kept, moments)
        state = state_moment(group, moments)
        matrices: dict[str, Tensor] = {}

        def with_matrix(reader: Reader) -> Reader:
            name = moment_name(reader)
            if name not in matrices:
                matrices[name] = reconstruction(moments[name].mean, kept, tau)
            return replace(reader, reconstruction=matrices[name])

        readers = tuple(map(with_matrix, group.readers)) if self.reconstruct else group.readers
        total = state.trace().item()
        lost = information_loss(state, kept) / total if total > 0 else 0.0
        return UnitPlan(tuple(group.layers), group.units, kept, group.writers, readers, lost=min(max(lost, 0.0), 1.0))


def best(scores: Tensor, count: int) -> Tensor:
    """Return the units of the highest scores; ties break by position.

    Example:
        >>> best(torch.tensor([1.0, 3.0, 3.0, 2.0]), 2)
        tensor([1, 2])
    """
    return scores.argsort(descending=True, stable=True)[:count].cpu()


def state_moment(group: UnitGroup, moments: Moments) -> Tensor:
    """Return Σ of a group's units at all steps, the mean over its layers."""
    return torch.stack([moments[name].mean for name in group.states]).mean(0)


def sizes_wanted(units: Units, recurrent: Sequence[RecurrentModule], option: str = "units") -> dict[str, int]:
    """Return how many units each recurrent module is to keep, by its name.

    Args:
        units: See :class:`UnitCriterion`.
        recurrent: The recurrent modules of the model.
        option: What the user calls the numbers, for messages.

    Raises:
        UsageError: If a module is unknown, its class cannot become smaller, or the number does not fit.

    Example:
        >>> recurrent = find_recurrent(nn.ModuleDict({"a": nn.GRU(2, 10), "b": nn.LSTM(10, 20)}))
        >>> sizes_wanted(0.5, recurrent), sizes_wanted({"b": 7}, recurrent)
        ({'a': 5, 'b': 10}, {'b': 7})
    """
    modules = {found.label: found for found in recurrent}
    asked = units if isinstance(units, Mapping) else dict.fromkeys(modules, units)
    sizes = {}
    for name, number in asked.items():
        if name not in modules:
            layer = " All layers and directions of a module keep as many units." if ".l" in name else ""
            raise UsageError(f"{option}= names {name}, which is none of {', '.join(modules)}.{layer}")
        sizes[modules[name].name] = _size(modules[name], number, option)
    return sizes


def _size(found: RecurrentModule, number: int | float, option: str) -> int:
    module: Any = found.module
    if found.entry.own:
        raise UsageError(
            f"{found.label} is a {type(module).__name__}, which sparse_rnn cannot make smaller, as it does not know "
            f"what else in it has the size of a unit: name only other modules in {option}=."
        )
    least = getattr(module, "proj_size", 0) + 1
    share = isinstance(number, float)
    valid = 0 < number <= 1 if share else least <= number <= module.hidden_size
    if not valid:
        raise UsageError(
            f"{option}={number} for {found.label}: give a number from {least} to {module.hidden_size}, or a share of "
            "them, above 0 and at most 1.0."
        )
    return max(least, math.floor(number * module.hidden_size + 0.5)) if share else int(number)


def check_units(name: str, value: Any) -> None:
    """Refuse what are no numbers of units, nor shares of them, for all modules or by their names, with a UsageError."""
    for module in value if isinstance(value, Mapping) else ():
        if not isinstance(module, str):
            raise UsageError(f"{name}={value!r}: {module!r} is no name of a module; write it as in {{'rnn': 42}}.")
    for number in value.values() if isinstance(value, Mapping) else [value]:
        if isinstance(number, float):
            check_number(name, number, "(0, 1]", "a share of the units", hint="or a whole number of them")
        else:
            check_whole(name, number, 1, wanted="a number of units", hint="or a share of them, above 0 and at most 1.0")


def layers_of_modules(recurrent: Sequence[RecurrentModule], names: Mapping[str, int]) -> list[str]:
    """Name the layers of modules, which are given by their names.

    Example:
        >>> layers_of_modules(find_recurrent(nn.GRU(2, 3, num_layers=2)), {"": 2})
        ['l0', 'l1']
    """
    return [layer for found in recurrent if found.name in names for layer in named_layers([found])]


def check_read(groups: Sequence[UnitGroup], recurrent: Sequence[RecurrentModule], declared: Declared | None) -> None:
    """Refuse layers whose units nothing has read, unless the user says that this is so.

    Raises:
        UsageError: If there is one.

    Example:
        >>> check_read([], [], None)
    """
    modules = {name: found for found in recurrent for name in named_layers([found])}
    for group in groups:
        name = next(iter(group.layers))
        projected = "hr" in group.layers[name].kernels
        if projected or any(not reader.recurrent for reader in group.readers):
            continue
        label = modules[name].label
        if declared is None or label not in declared:
            raise UsageError(
                f"Nothing in the run has read the units of {name}, so that what reads them would not become smaller: "
                "let loss_fn= run the model as far as its loss, or name what reads them in "
                f'readers={{"{label}": [...]}}.'
            )


def _count(group: UnitGroup, recurrent: Sequence[RecurrentModule], sizes: Mapping[str, int]) -> int:
    modules = {name: found for found in recurrent for name in named_layers([found])}
    counts = {modules[name].label: sizes[modules[name].name] for name in group.layers}
    if len(set(counts.values())) > 1:
        raise UsageError(f"Units of {', '.join(counts)} belong together, but units= gives {counts}: give one number.")
    return next(iter(counts.values()))


def batches_of(data: Any) -> tuple[Any, Iterator[Any]]:
    """Return the first batch of a DataLoader, an iterator or a single batch, and an iterator over all of them.

    Raises:
        UsageError: If there is none.

    Example:
        >>> first, batches = batches_of(iter([1, 2]))
        >>> first, list(batches)
        (1, [1, 2])
    """
    if not isinstance(data, (DataLoader, Iterator)):
        return data, iter([data])
    iterator = iter(data)
    try:
        first = next(iterator)
    except StopIteration:
        raise UsageError("There is no batch in the data: give at least one.") from None
    return first, itertools.chain([first], iterator)
