"""Runs a model with its recurrent modules unrolled step by step, and keeps what the unrolled layers saw."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.layers import RecurrentLayer, RecurrentModule, layers_of
from sparse_rnn.recurrent.loop import Loop, recording
from sparse_rnn.recurrent.packing import pack_like, unpack
from sparse_rnn.recurrent.sequences import Sequences, part_of_a_longer_one
from sparse_rnn.recurrent.stand_in import forward_of, forwards_replaced
from sparse_rnn.recurrent.unroll import Unrolled
from sparse_rnn.recurrent.weight_drop import whole_weights

LossFn = Callable[[nn.Module, Any], Tensor]


def run(model: nn.Module, batch: Any, loss_fn: LossFn | None = None) -> Any:
    """Run the model on a batch: through ``loss_fn(model, batch)`` if given, else ``model(batch)``.

    A tuple or list is spread over ``forward``'s positional arguments, a dictionary over its keywords.
    """
    if loss_fn is not None:
        return loss_fn(model, batch)
    if isinstance(batch, dict):
        return model(**batch)
    if isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence):
        return model(*batch)
    return model(batch)


def run_unrolled(
    model: nn.Module, recurrent: Sequence[RecurrentModule], batch: Any, loss_fn: LossFn | None = None
) -> list[Unrolled]:
    """Run the model on a batch and return all its recurrent layers as they were unrolled, in the order of the calls.

    While the model runs, the step-by-step layers stand in for the fused ones, so nothing is computed twice. They apply
    no dropout between the layers of a module, and no weight drop. Calls that go on with the state of an earlier one are
    joined to sequences afterwards (:mod:`sparse_rnn.recurrent.sequences`); those of cells come last.

    Raises:
        UsageError: If one of the modules received nothing, runs by equations that are not known, or is not elementwise.
    """
    _check_elementwise(recurrent)
    loops = [Loop(found) for found in recurrent if found.takes_one_step]
    sequences = Sequences()

    def run_layer(
        layer: RecurrentLayer, x_TBI: Tensor, initial: State | None, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        x_TBI = x_TBI.clone()  # a loop may write the next step where this one was, and the next state likewise
        initial = None if initial is None else tuple(part.clone() for part in initial)
        unrolled = Unrolled(layer, x_TBI, initial, lengths)
        final = tuple(states[-1] for states in unrolled.states)
        sequences.add(layer, x_TBI, initial, final, lengths, unrolled)
        return unrolled.output_TBH, final

    with torch.no_grad(), whole_weights(), standing_in(recurrent, run_layer), recording(loops):
        run(model, batch, loss_fn)
    seen = sequences.unrolled() + [unrolled for loop in loops for unrolled in loop.unrolled()]
    layers = {id(unrolled.layer) for unrolled in seen}
    for found in recurrent:
        if id(found.layers[0][0]) not in layers:
            raise UsageError(
                f"The recurrent layer {found.label!r} received no input while the model "
                "ran on the batch: prune only models that use all of their recurrent layers, or name those to prune "
                "in kernels=."
            )
    part_of_a_longer_one(seen)
    return seen


# Runs one layer: (layer, x_TBI, initial state or None, lengths or None) to outputs [T, B, H] and final state.
RunLayer = Callable[[RecurrentLayer, Tensor, State | None, Tensor | None], tuple[Tensor, State]]


def _check_elementwise(recurrent: Sequence[RecurrentModule]) -> None:
    for found in recurrent:
        for layer in (layer for layer in layers_of([found]) if not layer.cell.elementwise):
            kernels = ", ".join(layer.kernels.values())
            raise UsageError(
                f"{found.label} ({layer.cell.name}) is not elementwise but for its "
                f"kernels, so its temporal Jacobian is not known in factored form: score {kernels} by a criterion that "
                "needs no Jacobian, such as Magnitude."
            )


@contextmanager
def standing_in(recurrent: Sequence[RecurrentModule], run_layer: RunLayer) -> Iterator[None]:
    """Let the recurrent modules of a model run layer by layer through a function of ours.

    Cells keep their forward: their loop is the user's, and they can be differentiated twice as they are.

    Raises:
        UsageError: If one of them has a forward of its own that does not call the registered one.
    """
    modules = [found for found in recurrent if not found.takes_one_step]
    with forwards_replaced((found, partial(_forward, found, run_layer)) for found in modules):
        yield


def _forward(found: RecurrentModule, run_layer: RunLayer, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Return what ``found.module.forward`` returns, computed layer by layer, in the type of the weights."""
    bound = inspect.signature(forward_of(found.entry.kind)).bind(found.module, *args, **kwargs)
    _, input, hx, *_ = (*bound.args, None)
    layout = _layout(found, input)
    dtype = next(iter(found.layers[0][0].weights.values())).dtype
    given = () if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
    initial = tuple((state.unsqueeze(1) if layout.unbatched else state).to(dtype) for state in given)
    with torch.autocast(layout.x_TBI.device.type, enabled=False):
        output_TBH, finals = _run_stack(found, run_layer, layout.x_TBI.to(dtype), initial, layout.lengths)
    if found.entry.own:
        _check_equations(found, input, hx, output_TBH)
    states = [(state.squeeze(1) if layout.unbatched else state).to(dtype) for state in finals]
    return layout.restore(output_TBH.to(dtype)), states[0] if len(states) == 1 else tuple(states)


@torch.no_grad()
def _check_equations(found: RecurrentModule, input: Any, hx: Any, output_TBH: Tensor) -> None:
    """Compare the first step with what a module of the user's own computes: later ones only add rounding errors."""
    given = () if hx is None else (hx,)
    returned = forward_of(found.entry.kind)(found.module, input, *given)
    output = returned[0] if isinstance(returned, tuple) and len(returned) == 2 else None
    if not isinstance(output, (Tensor, PackedSequence)):
        raise UsageError(
            f"{found.label!r} returned {type(returned).__name__}, not (output, state): a module that runs a whole "
            "sequence is called as torch.nn.GRU is; see register_cell."
        )
    expected = _layout(found, output).x_TBI[0].to(output_TBH)
    tolerance = torch.finfo(next(iter(found.layers[0][0].weights.values())).dtype).eps ** 0.5
    if expected.shape != output_TBH[0].shape or not torch.allclose(output_TBH[0], expected, tolerance, tolerance):
        raise UsageError(
            f"A step of {found.label!r} gives another output than its forward: its equations are not what forward "
            "computes; correct the step given to register_cell, or leave random parts such as dropout out of forward."
        )


def _run_stack(
    found: RecurrentModule, run_layer: RunLayer, x_TBI: Tensor, initial: State, lengths: Tensor | None
) -> tuple[Tensor, State]:
    """Run the layers of a module one above the other; each reads the outputs of all directions below it."""
    finals: list[State] = []
    for directions in found.layers:
        outputs = []
        for layer in directions:
            own = tuple(state[len(finals)] for state in initial) or None
            output_TBH, final = run_layer(layer, x_TBI, own, lengths)
            outputs.append(output_TBH)
            finals.append(final)
        x_TBI = torch.cat(outputs, dim=-1)
    return x_TBI, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))


@dataclass(frozen=True)
class _Layout:
    """An input as a batch of sequences with the time first, and the way back for outputs."""

    x_TBI: Tensor
    restore: Callable[[Tensor], Any]
    lengths: Tensor | None = None
    unbatched: bool = False


def _layout(found: RecurrentModule, x: Tensor | PackedSequence) -> _Layout:
    if isinstance(x, PackedSequence):
        x_TBI, lengths = unpack(x)
        return _Layout(x_TBI, lambda y: pack_like(x, y, lengths), lengths)
    if x.dim() == 2:
        return _Layout(x.unsqueeze(1), lambda y: y.squeeze(1), unbatched=True)
    if getattr(found.module, "batch_first", False):
        return _Layout(x.transpose(0, 1), lambda y: y.transpose(0, 1))
    return _Layout(x, lambda y: y)
