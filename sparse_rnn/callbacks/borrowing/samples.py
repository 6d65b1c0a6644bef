"""Training samples and the training step of a Lightning project, borrowed to score weights."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.data import extract_batch_size
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Sampler

from sparse_rnn.callbacks.borrowing.side_effects import side_effect_free
from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import GENERATORS, kept, seeded
from sparse_rnn.lightning_compat import before_transfer, combined_loader
from sparse_rnn.pruning.prune import score_batch
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.scores import Criterion, Scores
from sparse_rnn.torch_compat import set_sampler, tree_leaves, tree_map

Key = TypeVar("Key")


def training_batches(trainer: Trainer, num_samples: int) -> list[tuple[Any, int]]:
    """Return the first batches of the project's own training loader, until they hold ``num_samples`` samples.

    The loader is iterated as a copy, and the random generators it draws from are put back: training will see what it
    would have seen. The trainer must have set it up (``trainer.fit_loop.setup_data()``).

    Returns:
        Batches as the loader gives them, on the CPU, each with its number of samples. The last one is cut to size
        where everything in it has one entry a sample, and is whole otherwise.

    Raises:
        UsageError: If the loader ends before there are enough samples, or there is none.
    """
    loader = combined_loader(trainer)
    if loader is None:
        raise UsageError("There is no training data to score the weights on: give fit() a train_dataloader.")
    batches: list[tuple[Any, int]] = []
    missing = num_samples
    with kept(_generators(loader.flattened)):
        for batch, _, _ in iter(_copied(loader)):
            size = _size(batch)
            if size > missing and _can_be_cut(batch):
                batch, size = _cut(batch, missing), missing
            batches.append((batch, size))
            missing -= size
            if missing <= 0:
                return batches
    raise UsageError(
        f"num_samples={num_samples}, but the training loader gives only {num_samples - missing} samples: "
        "lower num_samples."
    )


def scores_on_batch(trainer: Trainer, kernels: Targets, batch: Any, criterion: Criterion, seed: int) -> Scores:
    """Score weights in the middle of training on a batch that was trained on, averaged over ranks.

    Nothing is read from the loader, which may not be able to go back, and training goes on as if nothing had been.

    Args:
        trainer: The trainer.
        kernels: The kernels of its model.
        batch: The batch as ``on_train_batch_end`` gets it.
        criterion: What scores the weights.
        seed: Seed of the random numbers of the criterion.
    """
    with isolate_rng(), seeded(seed):
        scores = score_batch(kernels, batch, criterion, training_loss(trainer, transferred=True))
    return average_over_ranks(trainer, scores)


def average_over_ranks(trainer: Trainer, values: dict[Key, Tensor]) -> dict[Key, Tensor]:
    """Return the mean of every rank's values, equal on all of them."""
    if trainer.world_size == 1:
        return values
    return {name: trainer.strategy.reduce(value, reduce_op="mean") for name, value in values.items()}


def training_loss(trainer: Trainer, transferred: bool = False) -> Any:
    """Make a loss function that runs the project's ``training_step`` on one of its batches, without its effects.

    The loss is what was given to ``manual_backward``, summed, if anything was, else what ``training_step`` returns.

    Args:
        trainer: The trainer.
        transferred: Whether the batches lie on the device already, as training left them.
    """

    def loss_fn(module: Any, batch: Any) -> Any:
        if not transferred:
            batch = trainer.precision_plugin.convert_input(batch)
            batch = before_transfer(module, batch)
            batch = trainer.strategy.batch_to_device(batch)
        takes_index = len(inspect.signature(module.training_step).parameters) > 1
        with side_effect_free(trainer, module) as losses, trainer.precision_plugin.train_step_context():
            try:
                output = module.training_step(batch, 0) if takes_index else module.training_step(batch)
            except (AttributeError, TypeError, RuntimeError) as error:
                raise RuntimeError(
                    f"{type(module).__name__}.training_step failed when it was run on a batch before training, to see "
                    f"what the recurrent layers receive: {error} (What on_train_start and the hooks after it "
                    "prepare is not there yet, and there are no gradients: prepare it in __init__ or setup, or take "
                    "criterion='magnitude' or 'random'.)"
                ) from error
        returned = output.get("loss") if isinstance(output, dict) else output
        loss = sum(losses) if losses else returned
        if loss is None and torch.is_grad_enabled():
            raise UsageError(
                f"{type(module).__name__}.training_step gave no loss for the first training batches, which the "
                "criterion needs: take criterion='jacobian', 'magnitude' or 'random'."
            )
        return loss

    return loss_fn


def _copied(loader: Any) -> Any:
    """Make a shallow copy of a combined loader; what iterating changes belongs to it."""
    copied = copy.copy(loader)
    copied.flattened = [_copied_loader(found) for found in loader.flattened]
    return copied


def _copied_loader(loader: Any) -> Any:
    if not isinstance(loader, DataLoader):
        return loader
    copied = copy.copy(loader)
    for name in ("sampler", "batch_sampler"):
        set_sampler(copied, name, _copied_sampler(getattr(loader, name)))
    return copied


def _copied_sampler(sampler: Any) -> Any:
    if not isinstance(sampler, Sampler):
        return sampler
    copied: Any = copy.copy(sampler)
    if hasattr(copied, "sampler"):
        copied.sampler = _copied_sampler(copied.sampler)
    return copied


def _generators(loaders: list[Any]) -> Iterator[Any]:
    """Yield the random generators that loaders, their samplers and their data sets draw from."""
    for loader in loaders:
        batch_sampler = getattr(loader, "batch_sampler", None)
        owners = (
            loader,
            getattr(loader, "sampler", None),
            batch_sampler,
            getattr(batch_sampler, "sampler", None),
            getattr(loader, "dataset", None),
        )
        for owner in owners:
            yield from (value for value in getattr(owner, "__dict__", {}).values() if isinstance(value, GENERATORS))


def _leaves(batch: Any) -> list[Any]:
    return tree_leaves(batch, is_leaf=lambda leaf: isinstance(leaf, PackedSequence))


def _size(batch: Any) -> int:
    """Count the samples in a batch."""
    for leaf in _leaves(batch):
        if isinstance(leaf, PackedSequence):
            return int(leaf.batch_sizes[0])
        if isinstance(leaf, Tensor) and leaf.dim():
            return len(leaf)
    return extract_batch_size(batch)


def _can_be_cut(batch: Any) -> bool:
    """Tell whether all in it are tensors of one length, so that cutting leaves them consistent."""
    leaves = _leaves(batch)
    return all(isinstance(leaf, Tensor) for leaf in leaves) and len({len(leaf) for leaf in leaves if leaf.dim()}) == 1


def _cut(batch: Any, wanted: int) -> Any:
    return tree_map(lambda x: x[:wanted] if x.dim() else x, batch)
