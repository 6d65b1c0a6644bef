"""The ways to fewer recurrent weights that irnn.py and language_model.py compare, under the names of their tables."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparse_rnn import Magnitude, Masks, prune
from sparse_rnn.pruning.structured import (
    ColumnSparsification,
    LowRank,
    RandomUnits,
    Spectral,
    UnitCriterion,
    UnitMagnitude,
    shrink,
)
from sparse_rnn.recurrent.capture import LossFn

CRITERIA: Mapping[str, type[UnitCriterion]] = {
    "spectral": Spectral,
    "random": RandomUnits,
    "magnitude": UnitMagnitude,
    "column sparsification": ColumnSparsification,
}
RECONSTRUCTED = ", reconstructed"


@dataclass(frozen=True)
class Task:
    """A trained network, and what a method may look at.

    Attributes:
        model: The network, which stays as it is.
        batches: Gives the batches of training data that second moments are taken of, anew at each call.
        loss_fn: Runs the network on a batch as far as its loss.
        gates: Gates of its cell.
        seed: Seed of what is drawn.
    """

    model: nn.Module
    batches: Callable[[], Iterator[Any]]
    loss_fn: LossFn
    gates: int
    seed: int


@dataclass(frozen=True)
class Smaller:
    """What a method has made of a network: masks are to be held while it is trained."""

    model: nn.Module
    masks: Masks | None = None


def recurrent_weights(model: nn.Module) -> int:
    """Count the weights of the kernels, those of the factors where a kernel is a product."""
    inside = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    return sum(p.numel() for module in inside for name, p in module.named_parameters() if "bias" not in name)


def smaller(method: str, task: Task, units: int, regularisation: float) -> Smaller:
    """Make a network smaller by one of the methods.

    Args:
        method: A name of :data:`NAMES`.
        task: The network.
        units: How many units stay. What keeps all units keeps as many weights, in the recurrent kernel (low rank) or in
            all kernels (magnitude of weights), as a network of so many units has.
        regularisation: λ, of what reconstructs.
    """
    name, reconstruct = method.removesuffix(RECONSTRUCTED), method.endswith(RECONSTRUCTED)
    if name == "magnitude of weights":
        return _masked(task, units)
    if name == "low rank":
        rank = LowRank(equal_rank(task, units), reconstruct)
        return Smaller(rank.factorise(task.model, task.batches(), task.loss_fn))
    options: dict[str, Any] = {"seed": task.seed} if name == "random" else {}
    criterion = CRITERIA[name](units, reconstruct, regularisation, **options)
    return Smaller(shrink(task.model, criterion.plan(task.model, task.batches(), task.loss_fn)))


NAMES = (*(name + how for name in (*CRITERIA, "low rank") for how in (RECONSTRUCTED, "")), "magnitude of weights")


def equal_rank(task: Task, units: int) -> int:
    """Return the rank at which two factors have the weights of a recurrent kernel of so many units."""
    hidden = _layer(task.model).hidden_size
    return max(1, round(task.gates * units**2 / (task.gates * hidden + hidden)))


def _masked(task: Task, units: int) -> Smaller:
    model = copy.deepcopy(task.model)
    layer = _layer(model)
    left = units * (layer.input_size + units) / (layer.hidden_size * (layer.input_size + layer.hidden_size))
    return Smaller(model, prune(model, next(task.batches())[0], sparsity=1 - left, criterion=Magnitude()))


def _layer(model: nn.Module) -> nn.RNNBase:
    [layer] = (module for module in model.modules() if isinstance(module, nn.RNNBase))
    return layer
