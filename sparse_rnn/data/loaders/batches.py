"""Batches of tensors in memory, in an order that depends on the seed and the epoch alone."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DistributedSampler, TensorDataset

from sparse_rnn.checks import check_flag, check_seed, check_whole
from sparse_rnn.data.loaders.passes import Batch, ResumableLoader


class BatchLoader(ResumableLoader):
    """Batches of a ``TensorDataset``, which can be resumed in the middle of an epoch.

    Lightning takes this loader wherever it takes a ``DataLoader``, and tells it the number of each epoch. A batch is
    made by one indexing operation, which needs no worker processes and no collation. Nothing is drawn from PyTorch's
    global random generator.

    Args:
        dataset: Tensors of equal first dimension N.
        batch_size: Samples in a batch, on each rank; the last batch of an epoch may be smaller.
        shuffle: Whether to draw a new order in each epoch instead of keeping that of the data.
        seed: Decides the orders, together with the epoch.
        rank: Index of this process among those that share the data.
        world_size: Number of those processes. If it does not divide N, up to ``world_size - 1`` samples come twice in
            an epoch; a single process sees each sample exactly once.
        collate: Makes a batch of the rows of its samples, a tuple of tensors; by default the tuple is the batch.

    Raises:
        UsageError: If the batch size is below 1.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from sparse_rnn.data import BatchLoader
        >>> loader = BatchLoader(TensorDataset(torch.arange(5), 10 * torch.arange(5)), batch_size=2)
        >>> for x, y in loader:
        ...     print(x.tolist(), y.tolist())
        [0, 1] [0, 10]
        [2, 3] [20, 30]
        [4] [40]
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
        collate: Callable[[Batch], Any] | None = None,
    ) -> None:
        super().__init__()
        check_whole("batch_size", batch_size, 1, wanted="the number of samples in a batch")
        check_flag("shuffle", shuffle)
        check_whole("world_size", world_size, 1)
        check_whole("rank", rank, 0, world_size - 1)
        check_seed(seed)
        self.dataset = dataset
        self.collate = collate
        order: DistributedSampler[int] = DistributedSampler(
            dataset, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed
        )
        # Lightning finds `set_epoch` here; it would want to replace a sampler held as `self.sampler`.
        self.batch_sampler = BatchSampler(order, batch_size, drop_last=False)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.batch_sampler)

    def places(self, batch_idx: int) -> torch.Tensor:
        """Say which samples of the data set a batch has, counted from 0; int64 [batch]."""
        return torch.tensor(next(itertools.islice(self.batch_sampler, batch_idx, None)))

    def batches(self, start: int) -> Iterator[Any]:
        """Yield the batches of the epoch, from number ``start`` on."""
        for indices in itertools.islice(self.batch_sampler, start, None):
            samples = self.dataset[torch.tensor(indices)]
            yield samples if self.collate is None else self.collate(samples)
