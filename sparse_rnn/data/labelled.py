"""Base class of the data sets of labelled sequences that fit into memory."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import TensorDataset

from sparse_rnn.checks import check_seed, check_whole
from sparse_rnn.data.hold_out import check_hold_out, left_to_train_on
from sparse_rnn.data.loaders.batches import BatchLoader
from sparse_rnn.data.loaders.resume import go_on_where_stopped

DIVISION_SEED = 0  # of every run: with the run's own, it would train on what runs of other seeds report on


class Splits(NamedTuple):
    """Three sets of samples: tensors of N rows each.

    Without a :meth:`LabelledSequences.collate` of the data set's own, they are the sequences x, float32 [N, T, I], and
    their labels y, int64 [N].

    Attributes:
        train: What the model trains on.
        val: What hyperparameters and checkpoints are chosen by.
        test: What the results are reported on.
    """

    train: TensorDataset
    val: TensorDataset
    test: TensorDataset


class LabelledSequences(LightningDataModule):
    """Labelled sequences in memory; a subclass adds :meth:`load`, :attr:`input_size` and :attr:`num_classes`.

    Batches are pairs (x, y): x float32 [B, T, I], y int64 [B]. The training samples come in a new order in each epoch,
    those of the other splits in the order of the data; ``predict`` goes over the test set.

    Args:
        batch_size: Samples in a batch, on each rank.
        seed: Decides the order of the training samples, and what is drawn where data are generated. How given data are
            divided it must not decide, or one seed would train on what another one reports on.
        hold_out: Share of the training samples, the last ones, to validate on in place of the validation set, and
            not to train on: for choosing hyperparameters without a look at what results are reported on.

    Raises:
        UsageError: If the batch size is below 1, the seed does not fit into 64 bits, or the share is not in [0, 1).

    Example:
        A data set of one's own takes three definitions:

        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from sparse_rnn.data import LabelledSequences, Splits
        >>> from sparse_rnn.data.labelled import divide
        >>> class Signs(LabelledSequences):
        ...     input_size, num_classes = 1, 2
        ...
        ...     def load(self):
        ...         x = torch.linspace(-1, 1, 300).view(60, 5, 1)
        ...         samples = TensorDataset(x, (x.sum(dim=(1, 2)) > 0).long())
        ...         return Splits(*divide(samples, (40, 10, 10)))
        >>> x, y = next(iter(Signs(batch_size=4, seed=0).val_dataloader()))
        >>> x.shape, y.shape
        (torch.Size([4, 5, 1]), torch.Size([4]))
    """

    def __init__(self, batch_size: int, seed: int, hold_out: float = 0.0) -> None:
        super().__init__()
        check_whole("batch_size", batch_size, 1, wanted="the number of samples in a batch")
        check_seed(seed)
        check_hold_out(hold_out)
        self.batch_size = batch_size
        self.seed = seed
        self.hold_out = hold_out
        self._splits: Splits | None = None

    @property
    @abstractmethod
    def input_size(self) -> int:
        """Features of one step, I."""

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Number of classes; labels are 0 … num_classes − 1."""

    @abstractmethod
    def load(self) -> Splits:
        """Read the data and divide them into three splits, the same ones whatever the seed.

        Raises:
            DataError: If they are missing or damaged.
        """

    def collate(self, samples: tuple[Tensor, ...]) -> Any:
        """Make a batch of the rows of its samples, one tensor for each tensor of the splits; by default they are it."""
        return samples

    @property
    def splits(self) -> Splits:
        """The three splits, which are read when they are first asked for."""
        if self._splits is None:
            self._splits = _held_out(self.load(), self.hold_out)
        return self._splits

    def setup(self, stage: str | None = None) -> None:
        """Read the data, once for all stages."""
        _ = self.splits

    def train_dataloader(self) -> BatchLoader:
        """Return the training set in shuffled batches."""
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
        place = {"rank": rank, "world_size": world_size}
        return BatchLoader(dataset, self.batch_size, shuffle=shuffle, seed=self.seed, collate=self.collate, **place)


def _held_out(splits: Splits, hold_out: float) -> Splits:
    if not hold_out:
        return splits
    end = left_to_train_on(len(splits.train), hold_out)
    train, val = (TensorDataset(*splits.train[part]) for part in (slice(end), slice(end, None)))
    return splits._replace(train=train, val=val)


def divide(dataset: TensorDataset, sizes: tuple[int, ...]) -> tuple[TensorDataset, ...]:
    """Divide a data set at random into disjoint sets, the same ones in every run.

    Args:
        dataset: The data set.
        sizes: Number of samples in each part; together they are all samples.

    Returns:
        The parts.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from sparse_rnn.data.labelled import divide
        >>> train, val = divide(TensorDataset(torch.arange(10)), (8, 2))
        >>> len(train), len(val)
        (8, 2)
        >>> sorted([*train.tensors[0].tolist(), *val.tensors[0].tolist()])
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(DIVISION_SEED))
    return tuple(TensorDataset(*dataset[part]) for part in order.split(list(sizes)))
