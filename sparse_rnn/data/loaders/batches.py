"""Whole batches out of tensors in memory, in an order that only the seed and the epoch decide."""

import itertools
from collections.abc import Iterator

import torch
from torch.utils.data import BatchSampler, DistributedSampler, TensorDataset

from sparse_rnn.data.loaders.passes import Batch, ResumableLoader


class BatchLoader(ResumableLoader):
    """Serve a ``TensorDataset`` in whole batches, resumable in the middle of an epoch.

    Lightning takes it wherever it takes a ``DataLoader``. It is none: one indexing operation a batch needs no workers,
    no collation and no draw from the global random state. Lightning announces each epoch to the sampler.

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
        super().__init__()
        self.dataset = dataset
        order: DistributedSampler[int] = DistributedSampler(
            dataset, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed
        )
        # Lightning finds `set_epoch` here; it would want to replace a sampler held as `self.sampler`.
        self.batch_sampler = BatchSampler(order, batch_size, drop_last=False)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.batch_sampler)

    def batches(self, start: int) -> Iterator[Batch]:
        """Yield the batches of the epoch from number ``start`` on."""
        for indices in itertools.islice(self.batch_sampler, start, None):
            yield self.dataset[torch.tensor(indices)]
