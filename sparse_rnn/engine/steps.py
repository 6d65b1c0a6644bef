"""Optimizers that step on the kept weights only: dense states of removed weights cost more than the layer itself.

Adam reads and writes five tensors as large as the dense kernel. What it does to a weight depends on that weight alone,
so it does the same to the kept ones gathered in a vector, and removed weights, whose gradients are 0 and whose states
are those that it begins with, stay 0 in both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop, Rprop

from sparse_rnn.engine.library import kernels, pointer
from sparse_rnn.param_groups import parameters_of

# What these do to a weight depends on that weight alone. Not their subclasses, which may do more.
ELEMENTWISE = frozenset({SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, NAdam, RAdam})
# The option that says what a state begins with, by the state's name; all others begin with 0.
_BEGINNINGS: dict[type[Optimizer], dict[str, str]] = {
    Adagrad: {"sum": "initial_accumulator_value"},
    Rprop: {"step_size": "lr"},
}


def initial_value(optimizer: Any, options: Mapping[str, Any], name: str) -> float:
    """Return what an optimizer begins with as the state of a weight.

    Args:
        optimizer: The optimizer.
        options: Its options for the weight, such as one of its groups.
        name: The name of the state.

    Example:
        >>> optimizer = torch.optim.Adagrad(nn.Linear(2, 2).parameters(), initial_accumulator_value=0.1)
        >>> initial_value(optimizer, optimizer.param_groups[0], "sum")
        0.1
    """
    named = [names for kind, names in _BEGINNINGS.items() if isinstance(optimizer, kind) and name in names]
    return float(options.get(named[0][name], 0.0)) if named else 0.0


class KeptSteps:
    """Lets optimizers step on the kept weights of some parameters, until :meth:`remove`.

    During a step the optimizer's groups hold a vector of the kept weights in the place of each parameter. Its states
    stay with the vectors between steps and are spread out whenever somebody reads them, at removed weights as the
    optimizer begins.

    Example:
        >>> layer = nn.Linear(100, 100)
        >>> optimizer = torch.optim.Adam(layer.parameters())
        >>> kept = torch.arange(50, dtype=torch.int32)
        >>> _ = layer.weight.data.view(-1)[50:].zero_()
        >>> steps = KeptSteps()
        >>> steps.update({layer.weight: kept})
        >>> steps.attach(optimizer)
        >>> layer.weight.grad = torch.ones(100, 100)
        >>> optimizer.step()
        >>> int(layer.weight.count_nonzero()), optimizer.state_dict()["state"][0]["exp_avg"].shape
        (50, torch.Size([100, 100]))
    """

    def __init__(self) -> None:
        self._positions: dict[nn.Parameter, Tensor] = {}
        self._vectors: dict[nn.Parameter, _Vector] = {}
        self._attached: dict[Optimizer, _Attached] = {}

    def update(self, positions: Mapping[nn.Parameter, Tensor]) -> None:
        """Take the positions of the kept weights in each flattened parameter, int32, instead of all earlier ones."""
        same = positions.keys() == self._positions.keys()
        if same and all(positions[parameter] is own for parameter, own in self._positions.items()):
            return
        self.spread()
        self._positions = dict(positions)
        self._vectors = {}

    def attach(self, optimizer: Any) -> None:
        """Let an optimizer step on kept weights, if it does to each weight what depends on that weight alone."""
        if type(optimizer) in ELEMENTWISE:
            if optimizer not in self._attached:
                self._attached[optimizer] = _Attached(self, optimizer)
            self._attached[optimizer].stand_ready()

    def hold(self, optimizers: Iterable[Any]) -> None:
        """Attach these optimizers, and let go of all others: a project that makes new ones has done with them."""
        wanted = list(optimizers)
        for optimizer in [own for own in self._attached if not any(own is one for one in wanted)]:
            attached = self._attached.pop(optimizer)
            attached.spread()
            attached.remove()
        for optimizer in wanted:
            self.attach(optimizer)

    def spread(self) -> None:
        """Give all states back the shape of their parameters."""
        for attached in self._attached.values():
            attached.spread()

    def remove(self) -> None:
        """Let the optimizers step as they were written, on states of the shape of their parameters."""
        self.spread()
        for attached in self._attached.values():
            attached.remove()
        self._attached = {}

    @property
    def vectors(self) -> Iterable[_Vector]:
        """The vectors that have been stepped on."""
        return self._vectors.values()

    def known_of(self, parameter: nn.Parameter) -> _Vector | None:
        """Return the vector that a parameter has had so far."""
        return self._vectors.get(parameter)

    def vector_of(self, parameter: nn.Parameter) -> _Vector | None:
        """Return the kept weights of a parameter that has a dense gradient on the CPU; None for any other."""
        gradient = parameter.grad
        if parameter not in self._positions or gradient is None or gradient.layout != torch.strided:
            return None
        if not (parameter.is_contiguous() and gradient.dtype == parameter.dtype):
            return None
        if parameter not in self._vectors:
            self._vectors[parameter] = _Vector(parameter, self._positions[parameter])
        return self._vectors[parameter]


class _Vector:
    """The kept weights of a parameter, as a parameter."""

    def __init__(self, parameter: nn.Parameter, positions: Tensor) -> None:
        self.parameter = parameter
        self.positions = positions
        self.kept = nn.Parameter(parameter.new_empty(len(positions)))

    def gather(self) -> None:
        self.kept.data = self.taken(self.parameter.detach())
        assert self.parameter.grad is not None
        self.kept.grad = self.taken(self.parameter.grad)

    def scatter(self) -> None:
        self._put(self.kept.detach(), self.parameter)
        increment_version(self.parameter)
        self.kept.grad = None

    def taken(self, dense: Tensor) -> Tensor:
        dense = dense.contiguous()
        values = dense.new_empty(len(self.positions))
        kernels().take(*self._call(dense), pointer(values))
        return values

    def spread(self, values: Tensor, rest: float) -> Tensor:
        dense = values.new_full(self.parameter.shape, rest)
        self._put(values, dense)
        return dense

    def _put(self, values: Tensor, dense: Tensor) -> None:
        values = values.contiguous()
        kernels().put(*self._call(values), pointer(dense))

    def _call(self, source: Tensor) -> tuple[Any, ...]:
        threads = torch.get_num_threads()
        return pointer(source), pointer(self.positions), len(self.positions), source.element_size(), threads


class _Attached:
    """An optimizer that steps on kept weights."""

    def __init__(self, steps: KeptSteps, optimizer: Optimizer) -> None:
        self._steps = steps
        self._optimizer = optimizer
        self._swapped: dict[nn.Parameter, _Vector] = {}
        # Vectors whose states lie in the place of their parameters' between steps.
        self._held: list[_Vector] = []
        self._before = optimizer.register_step_pre_hook(self._before_step)
        self._after = optimizer.register_step_post_hook(lambda *_: self._restore())
        self._handles = [
            self._before,
            self._after,
            optimizer.register_state_dict_pre_hook(lambda _: self.spread()),
        ]

    def stand_ready(self) -> None:
        """Swap after the hooks of others and put back before them, so that they see the parameters.

        What a step that failed has left in their place is put back now.
        """
        self._restore()
        for handle, last in ((self._before, True), (self._after, False)):
            hooks = handle.hooks_dict_ref()
            if hooks is not None:
                hooks.move_to_end(handle.id, last=last)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        state = self._optimizer.state
        if isinstance(state, _States) and self in state.owners:
            state.owners.remove(self)
            if not state.owners:
                self._optimizer.state = state.copy()

    def spread(self) -> None:
        """Give the states the shape of the parameters; a step that failed may have left the vectors in their place."""
        self._restore()
        self.spread_held()

    def spread_held(self) -> None:
        """Give the states the shape of the parameters, unless a step is under way."""
        held, self._held = self._held, []
        for vector in held:
            self._spread_one(vector)
        if held:  # in the order of the parameters again
            states = self._states()
            for key in [key for key in parameters_of(self._optimizer) if dict.__contains__(states, key)]:
                dict.__setitem__(states, key, dict.pop(states, key))

    def _spread_one(self, vector: _Vector) -> None:
        states = self._states()
        found = dict.pop(states, vector.kept, None)
        if found is not None:
            dict.__setitem__(states, vector.parameter, _each(found, vector.kept, partial(self._spread_state, vector)))

    def _spread_state(self, vector: _Vector, name: str, values: Tensor) -> Tensor:
        return vector.spread(values, initial_value(self._optimizer, self._optimizer.defaults, name))

    def leave_held(self) -> None:
        """Let the states of vectors lie where they are: a step is to read them."""
        self._held = []

    def _states(self) -> _States:
        """Return the optimizer's states, of a kind that knows of the vectors; it may have been given others."""
        states: Any = self._optimizer.state
        if not isinstance(states, _States):
            states = self._optimizer.state = _States(dict, states)
        if self not in states.owners:
            states.owners.append(self)
        return states

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Swap now, or after the closure, which makes the gradients."""
        self._restore()
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._swap()
            return None

        def then_swap() -> Any:
            loss = closure()
            self._swap()
            return loss

        if len(args) > 1:
            return (args[0], then_swap, *args[2:]), kwargs
        return args, kwargs | {"closure": then_swap}

    def _swap(self) -> None:
        for owner in self._states().owners:  # of another optimizer, too, whose states this one was given
            owner.leave_held()
        for group in self._optimizer.param_groups:
            group["params"] = [self._gathered(parameter) for parameter in group["params"]]

    def _gathered(self, parameter: nn.Parameter) -> nn.Parameter:
        vector = self._steps.vector_of(parameter)
        if vector is None:
            before = self._steps.known_of(parameter)
            if before is not None:  # this step is made on the parameter, with the states from before
                self._spread_one(before)
            return parameter
        vector.gather()
        self._swapped[vector.kept] = vector
        states = self._states()
        found = dict.pop(states, parameter, None)
        if found is not None:
            dict.__setitem__(states, vector.kept, _each(found, parameter, lambda _, dense: vector.taken(dense)))
        return vector.kept

    def _restore(self) -> None:
        """Put the parameters back, each for itself: somebody else may have swapped others."""
        for vector in self._swapped.values():
            vector.scatter()
        for group in self._optimizer.param_groups if self._swapped else ():
            group["params"] = [
                self._swapped[parameter].parameter if parameter in self._swapped else parameter
                for parameter in group["params"]
            ]
        self._swapped = {}
        states = self._states()
        self._held = [vector for vector in self._steps.vectors if dict.__contains__(states, vector.kept)]


class _States(defaultdict[Any, Any]):
    """The states of an optimizer, which have the shape of the parameters for whoever looks at them between steps.

    Without that ``optimizer.state[parameter]`` would make an empty state, and the next step begin with it.

    Attributes:
        owners: Those who keep states of vectors here.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.owners: list[_Attached] = []

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the states alone."""
        return defaultdict, (dict,), None, None, iter(self.items())

    def copy(self) -> Any:
        """Return the states as a plain optimizer has them."""
        return defaultdict(dict, self.items())

    __copy__ = copy


def _spread_first(name: str) -> Callable[..., Any]:
    method = getattr(defaultdict, name)

    @wraps(method)
    def spread_first(states: _States, *args: Any, **kwargs: Any) -> Any:
        for owner in states.owners:
            owner.spread_held()
        return method(states, *args, **kwargs)

    return spread_first


for _name in (
    *("__getitem__", "__setitem__", "__delitem__", "__contains__", "__iter__", "__reversed__", "__eq__", "__repr__"),
    *("__or__", "__ror__", "get", "setdefault", "pop", "popitem", "update", "keys", "values", "items"),
):
    setattr(_States, _name, _spread_first(_name))


def _each(state: Mapping[str, Any], like: Tensor, change: Callable[[str, Tensor], Tensor]) -> dict[str, Any]:
    """Change the tensors of a parameter's state that are of its shape."""
    return {
        name: change(name, value) if isinstance(value, Tensor) and value.shape == like.shape else value
        for name, value in state.items()
    }
