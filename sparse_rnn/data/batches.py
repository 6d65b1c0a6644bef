"""Whole batches out of tensors in memory, in an order that only the seed and the epoch decide."""

import itertools
from collections.abc import Iterator
from typing import TypedDict
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler, TensorDataset

Batch = tuple[Tensor, ...]


class LoaderState(TypedDict):
    """Where training stands in the epoch: ``position`` counts the batches already given out."""

    position: int


class BatchLoader:
    """Serve a ``TensorDataset`` in whole batches, resumable in the middle of an epoch.

    Lightning takes it wherever it takes a ``DataLoader``. It is none: one indexing operation a batch needs no workers,
    no collation and no draw from the global random state. Lightning announces each epoch to the sampler and saves
    ``state_dict()`` in every checkpoint, so a resumed run goes on with exactly the batches it has not seen.

    Every ``iter(loader)`` starts a new pass. A pass opened beside the training loop's own, as scoring does, neither
    moves that one nor enters the checkpoint.

    Args:
        dataset: tensors of equal first dimension N.
        batch_size: samples in a batch, on each rank; the last batch may be smaller.
        shuffle: draw a new order in each epoch instead of keeping the data's.
        seed: decides the orders, together with the epoch.
        rank: index of this process among those that share the data.
        world_size: number of those processes. If it does not divide N, ``DistributedSampler`` gives up to
            ``world_size - 1`` samples twice; a single process sees each sample exactly once.
    """

    def __init__(
        self,
        dataset: TensorDataset,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset = dataset
        order: DistributedSampler[int] = DistributedSampler(
            dataset, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed
        )
        # Lightning finds `set_epoch` here; it would want to replace a sampler held as `self.sampler`.
        self.batch_sampler = BatchSampler(order, batch_size, drop_last=False)
        self._passes: WeakValueDictionary[int, _Pass] = WeakValueDictionary()
        self._next_start = 0
        self._position = 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        """Start a pass: from the first batch, or once from where ``load_state_dict`` says."""
        start, self._next_start = self._next_start, 0
        opened = _Pass(self, start)
        self._passes[id(opened)] = opened
        return opened

    def state_dict(self) -> LoaderState:
        """Return the position of the oldest pass in use or last used, the training loop's; 0 after the last batch."""
        # A finished epoch is followed by a new one, also where Lightning resumes without asking for a new pass.
        return {"position": self._position % len(self)}

    def load_state_dict(self, state: LoaderState) -> None:
        """Let the next pass, and only that one, start at the position of ``state``."""
        self._next_start = self._position = state["position"]

    def advanced(self, moved: "_Pass") -> None:
        """Take note that a pass gave out a batch."""
        if next(iter(self._passes.values())) is moved:
            self._position = moved.position


class _Pass(Iterator[Batch]):
    """One way through the batches; ``position`` counts those given out, skipped ones included."""

    def __init__(self, loader: BatchLoader, start: int) -> None:
        self.position = start
        self._loader = loader
        self._batches = _read(loader, start)

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.position += 1
        self._loader.advanced(self)
        return batch


def _read(loader: BatchLoader, start: int) -> Iterator[Batch]:
    # A generator, because Lightning asks for a pass first and sets its epoch afterwards.
    for indices in itertools.islice(loader.batch_sampler, start, None):
        yield loader.dataset[torch.tensor(indices)]
