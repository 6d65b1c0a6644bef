"""Tells whether learning rate schedulers can go on with the states that a checkpoint holds, before they take them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sparse_rnn.checks import is_number, is_whole
from sparse_rnn.errors import UsageError

_KNOWN = ("torch", "sparse_rnn")  # packages whose schedulers keep the same things from the first step to the last
# What not every supported version of PyTorch keeps; a scheduler that is not given it goes on with its own.
_OF_SOME_VERSIONS = {"verbose", "default_min_lr", "_is_initial", "_get_lr_called_within_step", "_scale_fn_ref"}
_COUNTS = {"last_epoch", "_step_count", "num_bad_epochs", "cooldown_counter"}


def check_schedulers(path: Any, schedulers: Sequence[Any], saved: Sequence[Any]) -> None:
    """Refuse states that schedulers would take and could not go on with.

    ``load_state_dict`` of PyTorch's schedulers takes whatever it is given for attributes of theirs, also those of
    another class. So a state must have what the scheduler keeps when it is new, each of the same kind, with lists of
    the same length (one learning rate for each group of parameters) and finite numbers where these are finite. Values
    are the checkpoint's to tell. What schedulers of other packages keep is theirs to know.

    Args:
        path: The checkpoint, for the error's sentence.
        schedulers: They have not loaded their states yet.
        saved: The states, in the same order.

    Raises:
        UsageError: If one cannot go on, or there are more or fewer states than schedulers.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3)
        >>> check_schedulers("last.ckpt", [scheduler], [scheduler.state_dict()])
        >>> check_schedulers("last.ckpt", [scheduler], [scheduler.state_dict() | {"gamma": float("nan")}])
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: last.ckpt is damaged or of another run: StepLR cannot go on with a state whose ...
    """
    if len(schedulers) != len(saved):
        raise UsageError(
            f"{path} is damaged or of another run: it has states of {len(saved)} learning rate schedulers, and this "
            f"run has {len(schedulers)}."
        )
    for scheduler, state in zip(schedulers, saved, strict=True):
        if _is_known(scheduler) and (problem := _problem(scheduler.state_dict(), state, "state")):
            raise UsageError(
                f"{path} is damaged or of another run: {type(scheduler).__name__} cannot go on with a state {problem}."
            )


def _is_known(scheduler: Any) -> bool:
    parts = vars(scheduler).get("_schedulers", ())  # of those that put others one behind the other
    return type(scheduler).__module__.partition(".")[0] in _KNOWN and all(map(_is_known, parts))


def _problem(new: Any, saved: Any, name: str) -> str | None:
    """Say what is wrong with a part of a state; None if nothing is, or nothing can be known of it."""
    if new is None or (_alike(new, saved, name) and not isinstance(new, (Mapping, list, tuple))):
        return None
    if not _alike(new, saved, name):
        return f"whose {name} is {str(saved)[:60]!r}"
    if isinstance(new, Mapping):
        return _problem_of_keys(new, saved)
    problems = (_problem(one, other, name) for one, other in zip(new, saved, strict=True))
    return next(filter(None, problems), None)


def _problem_of_keys(new: Mapping[Any, Any], saved: Mapping[Any, Any]) -> str | None:
    if not all(isinstance(key, str) for key in new):  # of its own choice, as the epochs of MultiStepLR are
        odd = [pair for pair in saved.items() if not all(map(is_whole, pair))]
        return f"with {str(odd[0])[:60]} among its whole numbers" if odd else None
    if missing := new.keys() - saved.keys() - _OF_SOME_VERSIONS:
        return f"without {min(missing)}"
    if more := saved.keys() - new.keys() - _OF_SOME_VERSIONS:
        return f"that has {str(min(more, key=str))[:60]}, which is no part of it"
    problems = (_problem(value, saved[key], key) for key, value in new.items() if key in saved)
    return next(filter(None, problems), None)


def _alike(new: Any, saved: Any, name: str) -> bool:
    if isinstance(new, (list, tuple)):
        return isinstance(saved, (list, tuple)) and len(saved) == len(new)
    if name in _COUNTS:
        return is_whole(saved) and saved >= -1
    if not (is_number(new) or isinstance(new, Tensor)):
        return isinstance(saved, Mapping if isinstance(new, Mapping) else type(new))
    if isinstance(saved, Tensor) and saved.numel() == 1:
        saved = saved.item()
    return is_number(saved) and not math.isnan(saved) and (math.isfinite(saved) or not math.isfinite(float(new)))
