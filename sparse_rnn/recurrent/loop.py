"""Recurrent cells that the model drives by a loop of its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.layers import RecurrentModule
from sparse_rnn.recurrent.sequences import CallSequence, Sequences
from sparse_rnn.recurrent.stand_in import Forward, forward_of, forward_replaced, forwards_replaced
from sparse_rnn.recurrent.unroll import Unrolled
from sparse_rnn.torch_compat import own_attribute_set


class Loop:
    """Stands in for a cell's forward, which it calls, and joins the calls to sequences.

    Args:
        found: The cell, a module that takes one step when it is called.
    """

    def __init__(self, found: RecurrentModule) -> None:
        self.found = found
        self._layer = found.layers[0][0]
        self._forward = forward_of(found.entry.kind)
        self._sequences = Sequences()
        self._reached = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the cell returns, computed in the precision of its weights."""
        self._reached = True
        returned, x, state = self._run(self._forward, args, kwargs)
        self._record(x, state, self._checked(returned))
        return returned

    def call_own_forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what a forward of a subclass's own returns: it takes the step itself unless it calls the cell's."""
        self._reached = False
        returned, x, state = self._run(type(self.found.module).forward, args, kwargs)
        if not self._reached:
            self._record(x, state, self._checked(returned))
        return returned

    def _run(self, forward: Forward, args: Any, kwargs: Any) -> tuple[Any, Tensor, State | None]:
        """Call a forward of the cell; returns what it returns, and copies of what it was given, which it may change."""
        bound = inspect.signature(forward).bind(self.found.module, *args, **kwargs)
        _, x, *rest = bound.args
        dtype = next(iter(self._layer.weights.values())).dtype
        state = None
        if rest and rest[0] is not None:
            state = tuple(part.to(dtype) for part in _as_tuple(rest[0]))
            rest[0] = state if isinstance(rest[0], (tuple, list)) else state[0]
        given = x.clone(), None if state is None else tuple(part.clone() for part in state)
        with torch.autocast(x.device.type, enabled=False):
            return forward(self.found.module, x.to(dtype), *rest, **bound.kwargs), *given

    def unrolled(self) -> list[Unrolled]:
        """Return the sequences, each unrolled as a layer from the state that it began with, on the inputs it received.

        Raises:
            UsageError: If a step of the cell's equations does not give what its forward gave.
        """
        return [self._unroll(sequence) for sequence in self._sequences.joined()]

    def _record(self, x: Tensor, state: State | None, new: State) -> None:
        last = tuple(part.clone() for part in new)
        self._sequences.add(self._layer, torch.atleast_2d(x).unsqueeze(0), state, last)

    def _unroll(self, sequence: CallSequence) -> Unrolled:
        unrolled = sequence.unrolled()
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
        """Return the new state: what the cell returned, or the second part of that, behind an output."""
        names = self._layer.cell.states
        behind_output = returned[1:] if isinstance(returned, (tuple, list)) and len(returned) == 2 else ()
        for state in map(_as_tuple, (returned, *behind_output)):
            if len(state) == len(names) and all(isinstance(part, Tensor) for part in state):
                return state
        raise UsageError(
            f"{self.found.label!r} returned {type(returned).__name__}, not its new state {names}: a cell is called as "
            "cell(x, state) -> state, or as cell(x, state) -> (output, state); see register_cell."
        )


@contextmanager
def recording(loops: Sequence[Loop]) -> Iterator[None]:
    """Let loops stand in for the forwards of their cells.

    Raises:
        UsageError: If a cell was called, and has a forward of its own that does not call the registered one.
    """
    known = [loop for loop in loops if not (loop.found.entry.own and loop.found.has_own_forward)]
    with ExitStack() as stack:
        stack.enter_context(forwards_replaced((loop.found, loop) for loop in known))
        # The equations of a subclass are checked against its own forward, which may be all of the step or a part.
        for loop in (loop for loop in loops if loop not in known):
            stack.enter_context(forward_replaced(loop.found.module, loop.found.entry.kind, loop))
            stack.enter_context(own_attribute_set(loop.found.module, "forward", loop.call_own_forward))
        yield


def _as_tuple(state: Any) -> tuple[Any, ...]:
    return tuple(state) if isinstance(state, (tuple, list)) else (state,)
