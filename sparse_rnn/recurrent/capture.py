"""Runs a model with its recurrent modules unrolled step by step, and keeps what the unrolled layers saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.recurrent.layers import RecurrentModule
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.unroll import Unrolled, unroll

LossFn = Callable[[nn.Module, Any], Tensor]


def run(model: nn.Module, batch: Any, loss_fn: LossFn | None = None) -> Any:
    """Runs the model on a batch: through ``loss_fn(model, batch)`` if given, else ``model(batch)``.

    A tuple or list is spread over ``forward``'s positional arguments, a dictionary over its keywords.
    """
    if loss_fn is not None:
        return loss_fn(model, batch)
    if isinstance(batch, dict):
        return model(**batch)
    if isinstance(batch, (tuple, list)):
        return model(*batch)
    return model(batch)


def run_unrolled(
    model: nn.Module, recurrent: Sequence[RecurrentModule], batch: Any, loss_fn: LossFn | None = None
) -> list[Unrolled]:
    """Runs the model on a batch and returns all its recurrent layers as they were unrolled, in the order of the calls.

    While the model runs, the step-by-step layers stand in for the fused ones, so nothing is computed twice. They apply
    no dropout between the layers of a module.

    Raises:
        ValueError: If one of the modules received nothing, or an input that cannot be unrolled.
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
) -> tuple[Tensor, Any]:
    """What ``found.module.forward`` returns, computed step by step, in the precision of the weights."""
    x_TBI, initial, restore = _time_first(found, input, hx)
    dtype = found.layers[0][0].weights["ih"].dtype
    with torch.autocast(x_TBI.device.type, enabled=False):
        layers, output_TBH = _unroll_stack(found, x_TBI.to(dtype), tuple(state.to(dtype) for state in initial))
    calls.append((found, layers))
    finals = tuple(torch.stack([layer.states[index][-1] for layer in layers]) for index in range(len(layers[0].states)))
    output, *states = (restore(output_TBH), *(state.squeeze(1) if input.dim() == 2 else state for state in finals))
    return output, states[0] if len(states) == 1 else tuple(states)


def _unroll_stack(found: RecurrentModule, x_TBI: Tensor, initial: tuple[Tensor, ...]) -> tuple[list[Unrolled], Tensor]:
    """Unrolls the layers of a module one above the other; each reads the outputs of all directions below it."""
    layers: list[Unrolled] = []
    for directions in found.layers:
        here = [
            unroll(layer, x_TBI, tuple(state[len(layers) + index] for state in initial) or None)
            for index, layer in enumerate(directions)
        ]
        layers += here
        x_TBI = torch.cat([unrolled.output_TBH for unrolled in here], dim=-1)
    return layers, x_TBI


def _time_first(
    found: RecurrentModule, x: Tensor | PackedSequence, hx: Any
) -> tuple[Tensor, tuple[Tensor, ...], Callable[[Tensor], Tensor]]:
    """The input as [T, B, I], the initial state as tensors [layers·directions, B, H], and the way back for outputs."""
    if isinstance(x, PackedSequence):
        raise ValueError(
            f"The recurrent layer {found.name!r} receives a PackedSequence, which JacobianSpectrum cannot score yet: "
            "give it a padded tensor, or take another criterion."
        )
    initial = () if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
    if x.dim() == 2:
        return x.unsqueeze(1), tuple(state.unsqueeze(1) for state in initial), lambda y: y.squeeze(1)
    if found.module.batch_first:
        return x.transpose(0, 1), initial, lambda y: y.transpose(0, 1)
    return x, initial, lambda y: y
