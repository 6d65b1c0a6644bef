"""Runs a model with its recurrent modules unrolled step by step, and keeps what the unrolled layers saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.layers import RecurrentModule
from sparse_rnn.recurrent.packing import pack_like, unpack
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.unroll import Unrolled

LossFn = Callable[[nn.Module, Any], Tensor]


def run(model: nn.Module, batch: Any, loss_fn: LossFn | None = None) -> Any:
    """Runs the model on a batch: through ``loss_fn(model, batch)`` if given, else ``model(batch)``.

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
    """Runs the model on a batch and returns all its recurrent layers as they were unrolled, in the order of the calls.

    While the model runs, the step-by-step layers stand in for the fused ones, so nothing is computed twice. They apply
    no dropout between the layers of a module.

    Raises:
        ValueError: If one of the modules received nothing, or has a forward of its own.
    """
    calls: list[tuple[RecurrentModule, list[Unrolled]]] = []
    with torch.no_grad(), _standing_in(recurrent, calls):
        run(model, batch, loss_fn)
    for found in recurrent:
        if not any(caller is found for caller, _ in calls):
            raise ValueError(
                f"The recurrent layer {found.name or type(found.module).__name__!r} received no input while the model "
                "ran on the batch: prune only models that use all of their recurrent layers."
            )
    return [layer for _, layers in calls for layer in layers]


@contextmanager
def _standing_in(
    recurrent: Sequence[RecurrentModule], calls: list[tuple[RecurrentModule, list[Unrolled]]]
) -> Iterator[None]:
    for found in recurrent:
        if type(found.module).forward not in (nn.RNN.forward, nn.GRU.forward, nn.LSTM.forward, PeepholeLSTM.forward):
            raise ValueError(
                f"{type(found.module).__name__} has a forward of its own, so its steps are not known: use the plain "
                "PyTorch layer, or a criterion that needs no data."
            )
        vars(found.module)["forward"] = partial(_forward, found, calls)
    try:
        yield
    finally:
        for found in recurrent:
            del vars(found.module)["forward"]


def _forward(
    found: RecurrentModule, calls: list[tuple[RecurrentModule, list[Unrolled]]], input: Any, hx: Any = None
) -> tuple[Any, Any]:
    """What ``found.module.forward`` returns, computed step by step, in the precision of the weights."""
    layout = _layout(found, input)
    dtype = found.layers[0][0].weights["ih"].dtype
    given = () if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
    initial = tuple((state.unsqueeze(1) if layout.unbatched else state).to(dtype) for state in given)
    with torch.autocast(layout.x_TBI.device.type, enabled=False):
        layers, output_TBH = _unroll_stack(found, layout.x_TBI.to(dtype), initial, layout.lengths)
    calls.append((found, layers))
    finals = [torch.stack([layer.states[index][-1] for layer in layers]) for index in range(len(layers[0].states))]
    states = [state.squeeze(1) if layout.unbatched else state for state in finals]
    return layout.restore(output_TBH), states[0] if len(states) == 1 else tuple(states)


def _unroll_stack(
    found: RecurrentModule, x_TBI: Tensor, initial: State, lengths: Tensor | None
) -> tuple[list[Unrolled], Tensor]:
    """Unrolls the layers of a module one above the other; each reads the outputs of all directions below it."""
    layers: list[Unrolled] = []
    for directions in found.layers:
        here = [
            Unrolled(layer, x_TBI, tuple(state[len(layers) + index] for state in initial) or None, lengths)
            for index, layer in enumerate(directions)
        ]
        layers += here
        x_TBI = torch.cat([unrolled.output_TBH for unrolled in here], dim=-1)
    return layers, x_TBI


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
    if found.module.batch_first:
        return _Layout(x.transpose(0, 1), lambda y: y.transpose(0, 1))
    return _Layout(x, lambda y: y)
