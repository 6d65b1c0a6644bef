"""The contract of every pruning criterion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from inspect import isabstract
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from sparse_rnn.calls import as_called
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.kernels import Targets, targets_named

Scores = dict[str, Tensor]
Key = TypeVar("Key")
OfKind = TypeVar("OfKind", bound="Criterion")


class Criterion(ABC):
    """Give weights of a model a score; the weights with the largest scores are kept.

    A criterion that needs random numbers draws them from PyTorch's global CPU generator, so that whoever calls it
    decides on the seed, and the device does not matter.

    A subclass is known by the name of its class, in any case, and by ``short_name``, as soon as it is imported.

    Attributes:
        rounds: How often weights are scored and the survivors scored again, unless something else is asked for.
        short_name: What else to call it, such as ``jacobian``.
        needs_data: Whether ``score`` looks at ``batch`` at all. Where it does not, callbacks read no training samples.
    """

    rounds: int = 1
    needs_data: ClassVar[bool] = True
    short_name: ClassVar[str | None] = None

    def __repr__(self) -> str:
        return as_called(type(self), vars(self))

    @abstractmethod
    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None, names: Collection[str]) -> Scores:
        """Score weights of a model.

        Args:
            module: The model. It is left as it was but for what its own ``forward`` changes.
            batch: What ``module.forward`` takes: one tensor, a tuple of positional or a dictionary of keyword
                arguments.
            loss_fn: ``loss_fn(module, batch)`` runs the model and returns its loss. Where it is given, a criterion runs
                the model through it, and ``batch`` may be anything that it understands.
            names: The names of the parameters to score. Pruning gives :class:`sparse_rnn.recurrent.Targets`, a mapping
                of the names to kernels, which know their parameter, gates and layer.

        Returns:
            Parameter name to scores, shaped as the parameter, for each of ``names``.

        Raises:
            UsageError: If the criterion cannot score one of them, or needs a loss and has none.
        """

    def at(self: OfKind, density: float) -> OfKind:
        """Return the criterion for a pruning that keeps a share of the weights in the end; itself for most.

        Args:
            density: That share, in (0, 1].
        """
        return self


def criterion_named(name: str) -> Criterion:
    """Return a criterion with its default settings, by the name of its class or its short name, in any case.

    Raises:
        UsageError: If there is no criterion of that name.

    Example:
        >>> from sparse_rnn.scores import Magnitude
        >>> type(criterion_named("magnitude")) is Magnitude
        True
    """
    known = list(_concrete(Criterion))  # type: ignore[type-abstract]  # it looks for its concrete subclasses
    short = {kind: vars(kind).get("short_name") or kind.__name__ for kind in known}
    for kind in known:
        if name.lower() in (kind.__name__.lower(), short[kind].lower()):
            return kind()
    names = sorted(short.values())
    raise UsageError(f"criterion={name!r}: choose one of {', '.join(names)}, or give an object.")


def criterion_names() -> list[str]:
    """Return the names of all criteria's classes that are known, in the order of the alphabet.

    Example:
        >>> import sparse_rnn
        >>> "JacobianSpectrum" in criterion_names()
        True
    """
    return sorted(kind.__name__ for kind in _concrete(Criterion))  # type: ignore[type-abstract]  # as above


def _concrete(parent: type[Criterion]) -> Iterator[type[Criterion]]:
    for kind in parent.__subclasses__():
        if not isabstract(kind):
            yield kind
        yield from _concrete(kind)


def recurrent_only(criterion: object, module: nn.Module, names: Collection[str]) -> Targets:
    """Return the kernels that have given names, and refuse those that are no recurrent kernels.

    Raises:
        UsageError: If there are others among them.
    """
    targets = targets_named(module, names)
    others = sorted(name for name, kernel in targets.items() if kernel.layer is None)
    if others:
        raise UsageError(
            f"{type(criterion).__name__} scores recurrent kernels only, and {', '.join(others)} is none: leave it out, "
            "or take another criterion."
        )
    return targets


def summed(parts: Iterable[tuple[Key, Tensor]]) -> dict[Key, Tensor]:
    """Sum all tensors that go by the same name."""
    total: dict[Key, Tensor] = {}
    for name, part in parts:
        total[name] = total[name] + part if name in total else part
    return total
