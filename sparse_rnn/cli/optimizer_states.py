"""Tells whether optimizers can go on with the states that a checkpoint holds, before a training does."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sparse_rnn.errors import UsageError, one_line
from sparse_rnn.isolation import rng_kept


def check_states(path: Any, optimizers: Iterable[Any], names: Mapping[Any, str]) -> None:
    """Refuse states that an optimizer has loaded and cannot step with.

    ``load_state_dict`` takes averages of any shape, and what each kind of optimizer keeps is its own: most keep
    averages of the parameter's shape, Adafactor those of its rows and columns, others lists or matrices. So each
    parameter has copies that take a step from a gradient of 0, one as it is new and one with the loaded state: of the
    first the shapes are taken, and the second must not fail. Where the new one fails, as its step needs a closure or
    sparse gradients, nothing is known, and the state is left alone.

    Args:
        path: The checkpoint, for the error's sentence.
        optimizers: They have loaded their states; what is no optimizer of PyTorch is left alone.
        names: The parameters' names.

    Raises:
        UsageError: If one cannot go on.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2, 3))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> check_states("last.ckpt", [optimizer], {weight: "weight"})
        >>> optimizer.state[weight]["momentum_buffer"] = torch.ones(3, 2)
        >>> check_states("last.ckpt", [optimizer], {weight: "weight"})
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: last.ckpt is damaged or of another model: SGD keeps its momentum_buffer as ...
    """
    with rng_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of optimizers, which warn again in the training
        for optimizer in optimizers:
            for group in optimizer.param_groups if isinstance(optimizer, Optimizer) else ():
                for p in group["params"]:
                    _check(path, optimizer, group, p, names.get(p, "a parameter"))


def _check(path: Any, optimizer: Optimizer, group: dict[str, Any], p: Tensor, name: str) -> None:
    # What a checkpoint says of a group's options takes the place of those that the optimizer was made with.
    new = _state_after_a_step(optimizer, group | optimizer.defaults, p, {})
    if isinstance(new, Exception):
        return
    saved, kind = optimizer.state.get(p, {}), type(optimizer).__name__
    for key, value in new.items():
        found = saved.get(key)
        if isinstance(value, Tensor) and isinstance(found, Tensor) and not _alike(value, found):
            raise UsageError(
                f"{path} is damaged or of another model: {kind} keeps its {key} as {_shape(value)} for {name}, and the "
                f"saved one is {_shape(found)}."
            )
    if isinstance(error := _state_after_a_step(optimizer, group, p, saved), Exception):
        raise UsageError(
            f"{path} is damaged or of another model: {kind} cannot go on with what was saved for {name} "
            f"({type(error).__name__}: {one_line(str(error))[:200]})."
        ) from error


def _state_after_a_step(optimizer: Optimizer, group: dict[str, Any], p: Tensor, state: Any) -> Any:
    """Let a copy of an optimizer, which has a copy of one parameter only, take a step; give its error if it fails."""
    try:
        weight = torch.nn.Parameter(p.detach().clone(), requires_grad=p.requires_grad)
        weight.grad = torch.zeros_like(weight)
        twin = copy.copy(optimizer)  # without hooks
        twin.param_groups = [{**copy.deepcopy({**group, "params": []}), "params": [weight]}]
        twin.state = defaultdict(dict, {weight: copy.deepcopy(state)} if state else {})
        twin.step()
        return twin.state.get(weight, {})
    except Exception as error:  # whatever the arithmetic raises
        return error


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape or one.numel() == other.numel() == 1  # counts of steps are [] or [1]


def _shape(value: Tensor) -> str:
    return " × ".join(map(str, value.shape)) or "one number"
