"""The contract of every pruning criterion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import Any, TypeVar, get_args

from torch import Tensor, nn

from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.layers import kernel_gates

Scores = dict[str, Tensor]
Key = TypeVar("Key")


class Criterion(ABC):
    """Gives weights of a model a score; the weights with the largest scores are kept.

    A criterion that needs random numbers draws them from PyTorch's global CPU generator, so that whoever calls it
    decides on the seed, and the device does not matter.

    Attributes:
        rounds: How often weights are scored and the survivors scored again, unless something else is asked for.
    """

    rounds: int = 1

    @abstractmethod
    def score(
        self, module: nn.Module, batch: Any, loss_fn: LossFn | None = None, names: Collection[str] | None = None
    ) -> Scores:
        """Scores weights of a model.

        Args:
            module: The model. It is left as it was but for what its own ``forward`` changes.
            batch: What ``module.forward`` takes: one tensor, a tuple of positional or a dictionary of keyword
                arguments.
            loss_fn: ``loss_fn(module, batch)`` runs the model and returns its loss. Where it is given, a criterion runs
                the model through it, and ``batch`` may be anything that it understands.
            names: The names of the parameters to score; None for the kernels of all recurrent layers.

        Returns:
            Parameter name to scores, shaped as the parameter, for each of ``names``.

        Raises:
            ValueError: If the criterion cannot score one of them, or needs a loss and has none.
        """


def refuse_others(criterion: Criterion, module: nn.Module, names: Collection[str] | None) -> None:
    """Refuses names of weights that are no recurrent kernels with a ValueError."""
    others = set(names or ()) - set(kernel_gates(module))
    if others:
        raise ValueError(
            f"{type(criterion).__name__} scores recurrent kernels only, and {', '.join(sorted(others))} is none: "
            "leave it out, or take another criterion."
        )


def parameters_of(module: nn.Module, names: Collection[str] | None) -> dict[str, nn.Parameter]:
    """The parameters to score, by name; those of all recurrent kernels if no names are given."""
    return {name: module.get_parameter(name) for name in (kernel_gates(module) if names is None else names)}


def summed(parts: Iterable[tuple[Key, Tensor]]) -> dict[Key, Tensor]:
    """The sum of all tensors that go by the same name."""
    total: dict[Key, Tensor] = {}
    for name, part in parts:
        total[name] = total[name] + part if name in total else part
    return total


def check_choice(name: str, value: str, choices: Any) -> None:
    """Refuses a value that a Literal type does not list with a ValueError."""
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(get_args(choices))}.")
