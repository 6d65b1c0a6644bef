"""Recurrent cells that the model drives by a loop of its own: which calls make a sequence."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.layers import RecurrentModule
from sparse_rnn.recurrent.unroll import Unrolled
from sparse_rnn.torch_compat import own_attribute_set


@dataclass
class _Sequence:
    """Consecutive steps: their inputs, the state before the first, and those after the first and the last."""

    inputs: list[Tensor]
    initial: State | None
    first: State
    last: State


class Loop:
    """Stands in for a cell's forward, which it calls, and joins the calls to sequences.

    A call continues the sequence whose last state it is given, value by value, so a state may be detached or copied on
    its way. Any other state (none, zeros, one changed by dropout, by masking or by what attention feeds in, fewer
    samples than before) begins a new sequence from there.

    Args:
        found: The cell, a module that takes one step when it is called.

    Raises:
        UsageError: If it has a forward of its own that :func:`sparse_rnn.register_cell` was not told of.
    """

    def __init__(self, found: RecurrentModule) -> None:
        self.found = found
        self._layer = found.layers[0][0]
        self._forward = type(found.module).forward
        if found.has_own_forward and not found.entry.own:
            raise UsageError(
                f"{type(found.module).__name__} has a forward of its own, so its steps are not known: use the plain "
                "PyTorch cell, give yours to register_cell, or take a criterion that needs no data."
            )
        self._signature = inspect.signature(self._forward)
        self._sequences: list[_Sequence] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the cell returns, computed in the precision of its weights."""
        _, x, *rest = self._signature.bind(self.found.module, *args, **kwargs).args
        given = _as_tuple(rest[0]) if rest and rest[0] is not None else None
        dtype = next(iter(self._layer.weights.values())).dtype
        state = None if given is None else tuple(part.to(dtype) for part in given)
        passed = () if state is None else (state if isinstance(rest[0], (tuple, list)) else state[0],)
        with torch.autocast(x.device.type, enabled=False):
            returned = self._forward(self.found.module, x.to(dtype), *passed, *rest[1:])
        self._record(x, state, self._checked(returned))
        return returned

    def unrolled(self) -> list[Unrolled]:
        """Return the sequences, each unrolled as a layer from the state that it began with, on the inputs it received.

        Raises:
            UsageError: If a step of the cell's equations does not give what its forward gave.
        """
        return [self._unroll(sequence) for sequence in self._sequences]

    def _record(self, x: Tensor, state: State | None, new: State) -> None:
        batched_x, last = torch.atleast_2d(x.clone()), tuple(part.clone() for part in new)
        for sequence in reversed(self._sequences):
            if state is not None and all(map(torch.equal, state, sequence.last)):
                sequence.inputs.append(batched_x)
                sequence.last = last
                return
        initial = None if state is None else tuple(part.clone() for part in state)
        self._sequences.append(_Sequence([batched_x], initial, last, last))

    def _unroll(self, sequence: _Sequence) -> Unrolled:
        x_TBI, initial = torch.stack(sequence.inputs), sequence.initial
        if initial is not None:
            initial = tuple(part.expand(x_TBI.shape[1], -1) for part in initial)
        unrolled = Unrolled(self._layer, x_TBI, initial)
        # Rounding errors of a step are far below this, and grow with the steps: the first one tells.
        tolerance = torch.finfo(sequence.first[0].dtype).eps ** 0.5
        for stored, wanted in zip(unrolled.states, sequence.first, strict=True):
            if not torch.allclose(stored[1], torch.atleast_2d(wanted).to(stored), tolerance, tolerance, equal_nan=True):
                raise UsageError(
                    f"A step of {self.found.label!r} gives another state than its forward (by "
                    f"{(stored[1] - wanted).abs().max().item():.2g}): its equations are not what forward computes; "
                    "correct the step given to register_cell, or leave random parts such as dropout out of forward."
                )
        return unrolled

    def _checked(self, returned: Any) -> State:
        state, names = _as_tuple(returned), self._layer.cell.states
        if len(state) != len(names) or not all(isinstance(part, Tensor) for part in state):
            raise UsageError(
                f"{self.found.label!r} returned {type(returned).__name__}, not its new state "
                f"{names}: a cell is called as cell(x, state) -> state; see register_cell."
            )
        return state


@contextmanager
def recording(loops: Sequence[Loop]) -> Iterator[None]:
    """Let loops stand in for the forwards of their cells."""
    with ExitStack() as stack:
        for loop in loops:
            stack.enter_context(own_attribute_set(loop.found.module, "forward", loop))
        yield


def _as_tuple(state: Any) -> tuple[Any, ...]:
    return tuple(state) if isinstance(state, (tuple, list)) else (state,)
