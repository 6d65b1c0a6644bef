"""Runs a model without leaving a trace, in it or in the random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


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


@contextmanager
def rng_kept() -> Iterator[None]:
    """Gives PyTorch's generators, those of all devices, back their state on exit."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield


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
