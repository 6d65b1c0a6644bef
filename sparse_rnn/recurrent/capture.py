"""Sees what each recurrent module of a model receives while the model runs, without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.recurrent.layers import RecurrentModule

LossFn = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class Call:
    """One call of a recurrent module.

    Attributes:
        x_TBI: The module's input, time first, detached.
        initial: One tensor [layers·directions, B, H] for each state; empty where the module starts from zeros.
    """

    x_TBI: Tensor
    initial: tuple[Tensor, ...] = field(default=())


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


def capture_inputs(
    model: nn.Module, recurrent: Sequence[RecurrentModule], batch: Any, loss_fn: LossFn | None = None
) -> list[list[Call]]:
    """Runs the model on a batch and returns the calls of each recurrent module, in order.

    Raises:
        ValueError: If one of the modules received nothing, or an input that cannot be scored.
    """
    calls: list[list[Call]] = [[] for _ in recurrent]
    handles = [
        found.module.register_forward_pre_hook(_recorder(found, record), with_kwargs=True)
        for found, record in zip(recurrent, calls, strict=True)
    ]
    try:
        with torch.no_grad():
            run(model, batch, loss_fn)
    finally:
        for handle in handles:
            handle.remove()
    for found, record in zip(recurrent, calls, strict=True):
        if not record:
            raise ValueError(
                f"The recurrent layer {found.name or type(found.module).__name__!r} received no input while the model "
                "ran on the batch: prune only layers that the model uses (kernels=...)."
            )
    return calls


def _recorder(found: RecurrentModule, calls: list[Call]) -> Callable[[nn.Module, tuple, dict], None]:
    def record(module: nn.Module, args: tuple, kwargs: dict) -> None:
        bound = dict(zip(("input", "hx"), args, strict=False)) | kwargs
        calls.append(_call(found, bound["input"], bound.get("hx")))

    return record


def _call(found: RecurrentModule, x: Tensor | PackedSequence, hx: Any) -> Call:
    if isinstance(x, PackedSequence):
        raise ValueError(
            f"The recurrent layer {found.name!r} receives a PackedSequence, which JacobianSpectrum cannot score yet: "
            "give it a padded tensor, or take another criterion."
        )
    initial = () if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
    if x.dim() == 2:
        x, initial = x.unsqueeze(1), tuple(state.unsqueeze(1) for state in initial)
    elif found.module.batch_first:
        x = x.transpose(0, 1)
    return Call(x.detach(), tuple(state.detach() for state in initial))


@contextmanager
def leave_no_trace(model: nn.Module) -> Iterator[None]:
    """Restores on exit what running a model changes in it: attributes, buffers, hidden states, metrics, flags.

    Tensors keep their identity (their values are copied back), so references held elsewhere stay true. Parameters and
    their gradients are not touched: nothing here calls ``backward``.
    """
    before = [(module, {k: _snapshot(v) for k, v in module.__dict__.items()}) for module in model.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, saved in before:
                module.__dict__ = {k: _restore(v) for k, v in saved.items()}


def _snapshot(value: Any) -> Any:
    if type(value) is Tensor:
        return value, value.detach().clone()
    if type(value) in (dict, list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return value, [(k, _snapshot(v)) for k, v in items]
    return value, None


def _restore(saved: Any) -> Any:
    value, copy = saved
    if copy is None:
        return value
    if isinstance(value, Tensor):
        if not torch.equal(value, copy):
            value.copy_(copy)
        return value
    items = [(k, _restore(v)) for k, v in copy]
    value.clear()
    if isinstance(value, dict):
        value.update(items)
    else:
        value.extend(v for _, v in items)
    return value
