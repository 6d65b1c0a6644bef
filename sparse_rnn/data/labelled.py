"""What data sets of labelled sequences in memory have in common."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import TensorDataset

from sparse_rnn.data.loaders.batches import BatchLoader
from sparse_rnn.data.loaders.resume import go_on_where_stopped


class Splits(NamedTuple):
    """Three sets of sequences x, float32 [N, T, I], with their labels y, int64 [N]."""

    train: TensorDataset
    val: TensorDataset
    test: TensorDataset


class LabelledSequences(LightningDataModule):
    """Labelled sequences in memory; a data set adds :meth:`load`, :attr:`input_size` and :attr:`num_classes`.

    Batches are pairs (x, y): x float32 [B, T, I], y int64 [B]. The training batches come in a new order each epoch,
    the others in the data's; ``predict`` goes over the test set.

    Args:
        batch_size: samples in a batch, on each rank.
        seed: decides how the data are divided and the order of the training batches.

    Raises:
        ValueError: if the batch size is below 1.
    """

    def __init__(self, batch_size: int, seed: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: give the number of samples in a batch, at least 1.")
        self.batch_size = batch_size
        self.seed = seed
        self._splits: Splits | None = None

    @property
    @abstractmethod
    def input_size(self) -> int:
        """Features of a step, I."""

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Number of classes; labels are 0 … num_classes − 1."""

    @abstractmethod
    def load(self) -> Splits:
        """Read the data and divide them."""

    @property
    def splits(self) -> Splits:
        """The data, read when they are first asked for."""
        if self._splits is None:
            self._splits = self.load()
        return self._splits

    def setup(self, stage: str | None = None) -> None:
        """Read the data, once for all stages."""
        _ = self.splits

    def train_dataloader(self) -> BatchLoader:
        """Return shuffled batches of the training set."""
        if self.trainer is None:
            return self._loader(self.splits.train, shuffle=True)
        go_on_where_stopped(self.trainer)
        # Lightning stops the shuffling of a DataLoader only. It sets overfit_batches where mypy does not see it.
        return self._loader(self.splits.train, shuffle=not self.trainer.overfit_batches)  # type: ignore[attr-defined]

    def val_dataloader(self) -> BatchLoader:
        """Return the validation set in batches."""
        return self._loader(self.splits.val)

    def test_dataloader(self) -> BatchLoader:
        """Return the test set in batches."""
        return self._loader(self.splits.test)

    def predict_dataloader(self) -> BatchLoader:
        """Return the test set in batches."""
        return self.test_dataloader()

    def _loader(self, dataset: TensorDataset, shuffle: bool = False) -> BatchLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return BatchLoader(dataset, self.batch_size, shuffle=shuffle, seed=self.seed, rank=rank, world_size=world_size)


def divide(dataset: TensorDataset, sizes: tuple[int, ...], seed: int) -> tuple[TensorDataset, ...]:
    """Divide a data set at random into disjoint sets of the given sizes, which add up to its length."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    return tuple(TensorDataset(*dataset[part]) for part in order.split(list(sizes)))
