"""Tells whether a checkpoint fits the model and the callbacks of a run, before anything of it is taken."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule
from torch import Tensor

from sparse_rnn.checkpoint_models import fill, masks_in
from sparse_rnn.errors import UsageError, one_line
from sparse_rnn.isolation import rng_kept


def check_fits(
    path: str | os.PathLike[str],
    checkpoint: Mapping[str, Any],
    model: LightningModule,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Refuse a checkpoint of another model or of other callbacks, before anything of it is taken.

    Weights, masks and the states of callbacks are tried on copies, and the checkpoint stays as it is, whatever hooks
    take out of it.

    Args:
        path: The checkpoint, for the error's sentence.
        checkpoint: What it holds.
        model: The model that is to take its weights.
        callbacks: Those that are to take their states.

    Raises:
        UsageError: If something does not fit.

    Example:
        >>> from sparse_rnn.modules import SequenceClassifier
        >>> model = SequenceClassifier(8, 10, hidden_size=4)
        >>> check_fits("last.ckpt", {"state_dict": model.state_dict()}, model)
        >>> check_fits("last.ckpt", {"state_dict": {}}, model)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: last.ckpt and the SequenceClassifier that its run describes differ: ...
    """
    checkpoint = _apart(checkpoint)
    states = checkpoint.get("callbacks", {})
    for callback in callbacks:
        if callback.state_key in states:
            _try_state(path, callback, states[callback.state_key])
    twin = _twin(model, checkpoint.get("hyper_parameters", {}))
    for callback in callbacks:
        if (resize := getattr(callback, "resize_as_saved", None)) is not None:
            with _refusing(path, callback):
                resize(twin, checkpoint)
    fill(path, twin, checkpoint)
    masks_in(path, checkpoint, twin)


def _apart(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Copy a checkpoint but for its tensors, which may fill the memory."""
    return copy.deepcopy(checkpoint, {id(tensor): tensor for tensor in _tensors(checkpoint)})


def _tensors(part: Any) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, (Mapping, list, tuple)):
        for inner in part.values() if isinstance(part, Mapping) else part:
            yield from _tensors(inner)


def _twin(model: LightningModule, saved: Mapping[str, Any]) -> LightningModule:
    """Copy a model; where data are to tell it a size, make one of the size that was saved."""
    sizes = {
        name: saved[name] for name, value in model.hparams.items() if value is None and saved.get(name) is not None
    }
    if not sizes:
        return copy.deepcopy(model)
    with rng_kept():
        try:
            return type(model)(**{**model.hparams, **sizes})
        except TypeError:  # it takes what its hyperparameters do not tell
            return copy.deepcopy(model)


def _try_state(path: str | os.PathLike[str], callback: Callback, state: Any) -> None:
    """Let a copy of a callback take its state."""
    before = callback.state_dict()
    with _refusing(path, callback), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of folders that have moved, which will be said once it is taken
        if not isinstance(state, Mapping):
            raise TypeError(f"it is a {type(state).__name__}")
        for key, value in before.items():
            if value is not None and state.get(key) is not None and not _alike(value, state[key]):
                raise TypeError(f"{key} is {str(state[key])[:60]!r}")
        copy.deepcopy(callback).load_state_dict(copy.deepcopy(dict(state)))


@contextmanager
def _refusing(path: str | os.PathLike[str], callback: Callback) -> Iterator[None]:
    """Say of whatever a callback complains about that the checkpoint's state of it is at fault."""
    try:
        yield
    except (UsageError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
        raise UsageError(
            f"{path} holds no state that {type(callback).__name__} has saved: {one_line(reason)}"
        ) from error


def _alike(value: Any, other: Any) -> bool:
    numbers = (int, float, Tensor)
    if isinstance(value, numbers):
        return isinstance(other, numbers)
    return isinstance(other, Mapping if isinstance(value, Mapping) else type(value))
