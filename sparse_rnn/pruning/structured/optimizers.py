"""Shrinks a model in the middle of its training: what its optimizers remember of each weight shrinks with it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured.shrink import Edit, shrink_
from sparse_rnn.pruning.structured.units import Plan


@torch.no_grad()
def shrink_with_optimizers_(model: nn.Module, plan: Plan, optimizers: Iterable[Optimizer]) -> dict[str, Edit]:
    """Do as :func:`shrink_`, and select what optimizers have likewise, so that a training goes on with them.

    Of Adam's moments, a momentum, or whatever else an optimizer has of a parameter in its shape, the kept units'
    entries stay; they are not multiplied by the reconstruction. Where it has something in another shape that would
    have to change, what it knows of that parameter is forgotten. A parameter that is new, as it was tied or an identity
    before, joins the group of that which it comes from, in the order of the model's parameters. Learning rates and
    everything else in the groups stay, and so do schedulers.

    Args:
        model: The model.
        plan: What a criterion has planned for it.
        optimizers: The optimizers that train it.

    Returns:
        Name of a parameter to what has become of it, as :func:`shrink_` does.

    Raises:
        UsageError: If the plan is not one of this model, or LBFGS is among the optimizers.

    Example:
        >>> from sparse_rnn.pruning.structured import UnitMagnitude
        >>> rnn, x = nn.RNN(3, 4), torch.randn(5, 2, 3)
        >>> optimizer = torch.optim.Adam(rnn.parameters())
        >>> rnn(x)[0].sum().backward()
        >>> optimizer.step()
        >>> plan = UnitMagnitude(units=2).plan(rnn, x, readers={"RNN": []})
        >>> _ = shrink_with_optimizers_(rnn, plan, [optimizer])
        >>> rnn(x)[0].sum().backward()
        >>> optimizer.step()
        >>> optimizer.state[rnn.weight_hh_l0]["exp_avg"].shape
        torch.Size([2, 2])
    """
    optimizers = list(optimizers)
    if any(isinstance(optimizer, torch.optim.LBFGS) for optimizer in optimizers):
        raise UsageError("LBFGS has one history of all weights, which cannot shrink: take another optimizer.")
    before = dict(model.named_parameters(remove_duplicate=False))
    shapes = {name: parameter.shape for name, parameter in before.items()}
    edits = shrink_(model, plan)
    after = dict(model.named_parameters(remove_duplicate=False))
    old = {id(parameter) for parameter in before.values()}
    new = [name for name, parameter in model.named_parameters() if id(parameter) not in old]
    for optimizer in optimizers:
        for name in new:
            _join(optimizer, model, after[name], _source(name, before, plan))
        for name in edits.keys() & before.keys():
            _select(optimizer, before[name], after[name], edits[name], shapes[name])
    return edits


def _source(name: str, before: Mapping[str, nn.Parameter], plan: Plan) -> nn.Parameter:
    """Return the parameter that a new one comes from: the tied one, or what makes the units that an identity passed."""
    if name in before:
        return before[name]
    weight = f"{name.rpartition('.')[0]}.weight"
    reads = (unit_plan for unit_plan in plan if any(reader.parameter == weight for reader in unit_plan.readers))
    return before[next(reads).writers[0].parameter]


def _join(optimizer: Optimizer, model: nn.Module, new: nn.Parameter, source: nn.Parameter) -> None:
    """Put a new parameter into the group of another one, where the model's order has it."""
    order = {id(parameter): place for place, parameter in enumerate(model.parameters())}
    for group in optimizer.param_groups:
        parameters = group["params"]
        if any(parameter is source for parameter in parameters):
            later = (n for n, parameter in enumerate(parameters) if order.get(id(parameter), inf) > order[id(new)])
            parameters.insert(next(later, len(parameters)), new)


def _select(optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter, edit: Edit, shape: torch.Size) -> None:
    state: Any = optimizer.state
    if old not in state:
        return
    selected = _selected(state[old], edit, shape)
    if selected is not None:
        state[new] = selected
    elif new is old:
        del state[old]


def _selected(state: Mapping[str, Any], edit: Edit, shape: torch.Size) -> dict[str, Any] | None:
    """Return what stays of an optimizer's state of a parameter; None where that cannot be told."""
    selected: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == shape:
            selected[key] = edit.select(value)
        elif not isinstance(value, Tensor) or not value.dim():
            selected[key] = copy.deepcopy(value)
        else:
            return None
    return selected
