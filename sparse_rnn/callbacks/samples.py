"""Training samples and the training step of a Lightning project, borrowed before training begins."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader


def training_batches(trainer: Trainer, num_samples: int) -> list[tuple[Any, int]]:
    """The first batches of the project's own training loader, until they hold ``num_samples`` samples.

    The loader is iterated as a copy, and its generators are put back: training will see what it would have seen. The
    trainer must have set it up (``trainer.fit_loop.setup_data()``).

    Returns:
        Batches as the loader gives them, on the CPU, each with its number of samples; the last one is cut to size.

    Raises:
        ValueError: If the loader ends before there are enough samples, or there is none.
    """
    loader = trainer.train_dataloader
    if loader is None:
        raise ValueError("There is no training data to score the weights on: give fit() a train_dataloader.")
    batches: list[tuple[Any, int]] = []
    missing = num_samples
    with _generators_kept(loader):
        for batch, _, _ in iter(CombinedLoader(_copy_loaders(loader), "min_size")):
            size = extract_batch_size(batch)
            batches.append((_cut(batch, size, missing), min(size, missing)))
            missing -= size
            if missing <= 0:
                return batches
    raise ValueError(
        f"num_samples={num_samples}, but the training loader gives only {num_samples - missing} samples: "
        "lower num_samples."
    )


def training_loss(trainer: Trainer) -> Any:
    """A loss function that runs the project's ``training_step`` on one of its batches, with logging silenced.

    Call it inside :func:`sparse_rnn.recurrent.no_trace.leave_no_trace`, which takes the silenced methods away again.
    """

    def loss_fn(module: nn.Module, batch: Any) -> Tensor:
        assert isinstance(module, nn.Module)
        if not module.automatic_optimization:
            raise ValueError(
                f"{type(module).__name__} optimises manually: its training_step cannot be run just to see its inputs. "
                "Take criterion='random' or 'magnitude', or call sparse_rnn.prune() on the module before fit()."
            )
        for name in ("log", "log_dict"):
            setattr(module, name, _ignore)
        batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
        step = module.training_step
        takes_index = len(inspect.signature(step).parameters) > 1  # type: ignore[arg-type]
        with trainer.precision_plugin.train_step_context(), _loggers_silenced(trainer):
            output = step(batch, 0) if takes_index else step(batch)  # type: ignore[operator]
        return output["loss"] if isinstance(output, dict) else output

    return loss_fn


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Stands in for ``LightningModule.log``, which Lightning forbids before training."""


@contextmanager
def _loggers_silenced(trainer: Trainer) -> Iterator[None]:
    loggers = trainer.loggers
    trainer.loggers = [DummyLogger() for _ in loggers]
    try:
        yield
    finally:
        trainer.loggers = loggers


def _loaders(loader: Any) -> list[DataLoader]:
    return [found for found in CombinedLoader(loader).flattened if isinstance(found, DataLoader)]


def _copy_loaders(loader: Any) -> Any:
    """Shallow copies: persistent workers and a resumable loader's position belong to the copy."""
    return tree_map(lambda leaf: copy.copy(leaf) if isinstance(leaf, DataLoader) else leaf, loader)


@contextmanager
def _generators_kept(loader: Any) -> Iterator[None]:
    generators = [
        generator
        for found in _loaders(loader)
        for generator in (found.generator, getattr(found.sampler, "generator", None))
        if isinstance(generator, torch.Generator)
    ]
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _cut(batch: Any, size: int, wanted: int) -> Any:
    """The first ``wanted`` samples of a batch of ``size``; the whole batch if it has no more."""
    if size <= wanted:
        return batch
    return tree_map(lambda x: x[:wanted] if isinstance(x, Tensor) and x.dim() and len(x) == size else x, batch)
