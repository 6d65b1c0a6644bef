"""Averages of the weights that a project keeps beside the model while Lightning trains it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sparse_rnn.lightning_compat import callbacks_of
from sparse_rnn.sparsity.copies import Copies, Found
from sparse_rnn.sparsity.masks import Masks

Named = tuple[str, Tensor]


class Averages:
    """Finds the averages of the weights that optimizers, callbacks and the model keep, and those in checkpoints.

    What optimizers keep is an average, and so is what :func:`averaged_models` gives. Anything else that may be a copy
    is one once it has changed: until then it may be a record, or a teacher, which are left alone. So is what a project
    adds to its checkpoints, as long as no average is known that it may be of.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._following: set[str] = set()

    def find(self, trainer: Trainer, masks: Masks, optimizers: Iterable[Any]) -> list[Named]:
        """Find the averages as they are now.

        Args:
            trainer: The trainer.
            masks: The masks, which are those of its model.
            optimizers: The optimizers that train it.
        """
        module, optimizers = trainer.lightning_module, list(optimizers)
        copies = _copies(trainer, masks, optimizers)
        certain = [found for optimizer in optimizers for found in copies.of_optimizer(optimizer)]
        certain += (found for place, value in averaged_models(trainer) for found in copies.within(value, place))
        certain += copies.of_modules(module)
        self._following |= {place for place, _, _ in certain}
        others = [found for place, value in _keepers(trainer) for found in copies.within(value, place)]
        return [found[1:] for found in certain] + [found[1:] for found in others if self._follows(found)]

    def in_checkpoint(self, trainer: Trainer, masks: Masks, checkpoint: dict[str, Any]) -> list[Named]:
        """Find the averages, and the weights themselves, in a checkpoint that is about to be written."""
        copies = _copies(trainer, masks, trainer.optimizers)
        found = list(copies.named(checkpoint.get("state_dict", {})))
        for optimizer, state in zip(trainer.optimizers, checkpoint.get("optimizer_states", []), strict=False):
            found += copies.of_optimizer_state(state, optimizer)
        states = checkpoint.get("callbacks", {})
        for place, callback in _others(trainer):
            if any(known.startswith(f"{place}.") for known in self._following) and callback.state_key in states:
                found += copies.within(states[callback.state_key])
        for key, value in checkpoint.items() if self._following else ():
            if key not in ("state_dict", "optimizer_states", "callbacks", "loops", "lr_schedulers", "hyper_parameters"):
                found += copies.within(value)
        return [(name, tensor) for _, name, tensor in found]

    def _follows(self, found: Found) -> bool:
        """Tell whether a copy has changed since it was seen first."""
        place, _, tensor = found
        if place not in self._following:
            finite = tensor.detach().nan_to_num(nan=0, posinf=0, neginf=0)  # an infinite sum hides changes
            total = float(finite.sum(dtype=torch.float64))
            if self._sums.setdefault(place, total) != total:
                self._following.add(place)
        return place in self._following


def _copies(trainer: Trainer, masks: Masks, optimizers: Iterable[Any]) -> Copies:
    parts = [trainer, trainer.strategy, *vars(trainer).values(), *trainer.loggers, *_ours(trainer)]
    return Copies(trainer.lightning_module, masks, optimizers, leave_out=parts)


def _ours(trainer: Trainer) -> list[Any]:
    """Give the callbacks that prune; what they keep of the weights is theirs to know."""
    return [callback for callback in callbacks_of(trainer) if hasattr(callback, "find_masks")]


def _others(trainer: Trainer) -> Iterator[tuple[str, Any]]:
    ours = _ours(trainer)
    for i, callback in enumerate(callbacks_of(trainer)):
        if callback not in ours:
            yield f"callbacks.{i}", callback


def averaged_models(trainer: Trainer) -> Iterator[tuple[str, nn.Module]]:
    """Give the averages of the whole model that callbacks keep, each with its place; a teacher is none.

    Args:
        trainer: The trainer.
    """
    model = type(trainer.lightning_module)
    for place, callback in _others(trainer):
        for name, value in vars(callback).items():
            # Lightning's StochasticWeightAveraging has a copy of the model, which is no AveragedModel.
            if isinstance(value, AveragedModel) or (name == "_average_model" and type(value) is model):
                yield f"{place}.{name}", value


def _keepers(trainer: Trainer) -> Iterator[tuple[str, Any]]:
    """Give everything that may keep averages: the callbacks of others, and what is no part of the model itself."""
    yield from _others(trainer)
    for name, value in vars(trainer.lightning_module).items():
        if name not in ("_parameters", "_buffers", "_modules"):
            yield f"module.{name}", value
