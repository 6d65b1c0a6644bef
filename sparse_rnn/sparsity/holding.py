"""Removed weights stay at 0 after each step of whatever optimizer there is."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from threading import RLock
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from sparse_rnn.param_groups import parameters_of
from sparse_rnn.sparsity.copies import averages_of
from sparse_rnn.states import parameter_at

# Sets the removed weights to 0 in tensors, each given with the name of its parameter.
Zero = Callable[[list[tuple[str, Tensor]]], None]


class _Steps:
    """Tells holds of the steps of all optimizers, by one hook that stays.

    Torch walks through its table of hooks after each step, and fails if another thread changes that meanwhile.
    """

    def __init__(self) -> None:
        self._holds: tuple[Hold, ...] = ()
        self._lock = RLock()  # the end of a model, which is told at any moment, forgets a hold
        self._listens = False

    def tell(self, hold: Hold) -> None:
        with self._lock:
            self._holds = (*self._holds, hold)
            if not self._listens:
                register_optimizer_step_post_hook(self._after_step)
                self._listens = True

    def forget(self, hold: Hold) -> None:
        with self._lock:
            self._holds = tuple(other for other in self._holds if other is not hold)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for hold in self._holds:
            hold.after_step(optimizer)


_STEPS = _Steps()


class Hold:
    """Sets removed weights to 0 after each optimizer step that can have changed them, until :meth:`remove`.

    It listens to all optimizers of the process, those that are made later, wrapped ones, and those that step inside the
    backward pass included; what one does that has none of the parameters costs a look at its groups. The averages of
    weights that an optimizer keeps in its state (``ax`` of ASGD, ``z`` of schedule-free ones) are zeroed with them. It
    does not keep the model alive. As a context manager it ends with the block.

    Args:
        module: The model.
        names: Names of the parameters.
        zero: Sets removed weights to 0 in tensors; it must not hold the model.

    Attributes:
        optimizers: Those that have stepped on the parameters.
        stepped: Whether one has since this was last set to False.
    """

    def __init__(self, module: nn.Module, names: list[str], zero: Zero) -> None:
        self.optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self.stepped = False
        self._module = weakref.ref(module, lambda _: self.remove())
        self._names = names
        self._zero = zero
        _STEPS.tell(self)

    def remove(self) -> None:
        """Let go: from now on the weights may change."""
        _STEPS.forget(self)

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def after_step(self, optimizer: Optimizer) -> None:
        """Set removed weights to 0 if the optimizer can have changed them."""
        module = self._module()
        if module is None:
            return
        stepped = {id(parameter) for parameter in parameters_of(optimizer)}
        parameters = ((name, parameter_at(module, name)) for name in self._names)
        mine = [
            (name, parameter) for name, parameter in parameters if parameter is not None and id(parameter) in stepped
        ]
        if mine:
            self.stepped = True
            self.optimizers.add(optimizer)
            states = ((name, parameter, _state_of(optimizer, parameter)) for name, parameter in mine)
            averages = [found[1:] for name, parameter, state in states for found in averages_of(state, name, parameter)]
            self._zero([*mine, *averages])


def _state_of(optimizer: Optimizer, parameter: Tensor) -> dict[str, Any]:
    """Look at a state past what an optimizer on kept weights does for those who read: that one has no averages."""
    states: Any = optimizer.state
    found: dict[str, Any] = dict.get(states, parameter, {}) if isinstance(states, dict) else states.get(parameter, {})
    return found
