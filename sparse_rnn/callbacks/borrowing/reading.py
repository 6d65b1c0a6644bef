"""Reading the first batches of a fit before it begins, so that it trains on every one of them all the same."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from sparse_rnn.callbacks.borrowing.positions import can_be_read_twice, put_back
from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import OwnRandomness, mixed_with_the_random_state
from sparse_rnn.lightning_loaders import combined_loader, read_ahead
from sparse_rnn.torch_compat import copied_loader


def first_batches(trainer: Trainer, seed: int) -> Generator[Any, None, None]:
    """Yield the first batches of the project's own training loader, as it gives them.

    Where every loader can be read twice, a copy is read, and what the copy changed is put back once this is closed.
    Where one cannot, the batches come from the loader itself, no more than an epoch trains on, and training begins
    with them. The global random generators are as they were whenever this waits.

    Args:
        trainer: The trainer, which has set up its loader (``trainer.fit_loop.setup_data()``).
        seed: Seed of the random numbers that are drawn while reading. A loader that is read only once draws from one
            that depends on the project's own seed, too: it is trained on what comes of it.

    Raises:
        UsageError: If there is no loader.
    """
    loader = combined_loader(trainer)
    if loader is None:
        raise UsageError("There is no training data to score the weights on: give fit() a train_dataloader.")
    if all(can_be_read_twice(found) for found in loader.flattened):
        return _from_a_copy(loader, OwnRandomness(seed))
    return _from_itself(trainer, OwnRandomness(mixed_with_the_random_state(seed), everywhere=True))


def _from_itself(trainer: Trainer, randomness: OwnRandomness) -> Generator[Any, None, None]:
    most = trainer.num_training_batches
    yield from islice(_drawing_from(randomness, read_ahead(trainer)), most if isinstance(most, int) else None)


def _from_a_copy(loader: Any, randomness: OwnRandomness) -> Generator[Any, None, None]:
    with put_back(loader.flattened):
        copied = copy.copy(loader)
        copied.flattened = [
            copied_loader(found) if isinstance(found, DataLoader) else found for found in loader.flattened
        ]
        with randomness.inside():
            batches = iter(copied)
        for batch, _, _ in _drawing_from(randomness, batches):
            yield batch


def _drawing_from(randomness: OwnRandomness, batches: Iterator[Any]) -> Generator[Any, None, None]:
    while True:
        with randomness.inside():
            try:
                batch = next(batches)
            except StopIteration:
                return
        yield batch
