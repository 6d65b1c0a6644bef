"""What can be read twice, and what reading changes put back."""

import io
import logging
import random
import sys
from collections import deque
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)
from unresolved import Unresolved

from sparse_rnn.callbacks.borrowing.positions import can_be_read_twice, put_back

X = torch.zeros(8, 2)


class Data(Dataset):
    def __init__(self, **held):
        vars(self).update(held)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return X[index]


class Module(LightningDataModule):
    """Its own method collates, and it knows its trainer, which is full of iterators."""

    def __init__(self):
        super().__init__()
        self.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        self.log = logging.getLogger("data")
        self.out = sys.stderr

    def collate(self, samples):
        self.collated = len(samples)
        return default_collate(samples)


TWICE = {
    "tensors": lambda: DataLoader(TensorDataset(X)),
    "a list": lambda: DataLoader(list(X), shuffle=True),
    "parts": lambda: DataLoader(ConcatDataset([Subset(TensorDataset(X), [1]), TensorDataset(X)])),
    "weights": lambda: DataLoader(X, sampler=WeightedRandomSampler([1.0] * 8, 8)),
    "ranks": lambda: DataLoader(X, sampler=DistributedSampler(X, 2, 0)),
    "batches of indices": lambda: DataLoader(X, batch_sampler=[[0, 1], [2]]),
    "a project's own": lambda: DataLoader(Data(table={"a": [1]}, rng=random.Random(0), transform=partial(max, 1))),
    "a config": lambda: DataLoader(Data(config=Unresolved())),
    "a method collates": lambda: DataLoader(X, collate_fn=Module().collate),
    "persistent": lambda: DataLoader(X, num_workers=1, persistent_workers=True),
}
SOURCE = iter(range(8))
ONCE = {
    "an iterator": lambda: iter([X]),
    "an iterator within": lambda: DataLoader(Data(deep={"a": [Data(source=map(abs, [1]))]})),
    "a part with one": lambda: DataLoader(Subset(Data(source=SOURCE), [0])),
    "a file": lambda: DataLoader(Data(file=io.StringIO("1"))),
    "a closure": lambda: DataLoader(Data(transform=lambda x, source=SOURCE: X, other=closing_over(iter([1])))),
    "a global one": lambda: DataLoader(X, collate_fn=collating),
    "a partial": lambda: DataLoader(X, collate_fn=partial(collating_with, iter([1]))),
    "a sampler of one's own": lambda: DataLoader(X, sampler=OwnSampler(X)),
    "one within a batch sampler": lambda: DataLoader(X, batch_sampler=BatchSampler(OwnSampler(X), 2, False)),
    "a list": lambda: [X],
}  # fmt: skip


class OwnSampler(RandomSampler):
    pass


def closing_over(source):
    return lambda: next(source)


def collating(samples):
    next(SOURCE)


def collating_with(source, samples):
    next(source)


@pytest.mark.parametrize("name", TWICE)
def test_these_can_be_read_twice(name):
    assert can_be_read_twice(TWICE[name]())


@pytest.mark.parametrize("name", ONCE)
def test_these_cannot(name):
    assert not can_be_read_twice(ONCE[name]())


def test_a_loader_may_say_so_itself():
    class Own(list):
        passes_are_independent = True

    assert can_be_read_twice(Own())


def test_what_reading_changes_is_put_back():
    inner = Data(number=1)
    held = {"left": deque([1, 2]), "seen": {1}, "cache": {}, "cursor": np.zeros(1), "count": torch.zeros(1)}
    data = Data(**held, inner=inner, rng=np.random.default_rng(0), old=np.random.RandomState(0))
    drawn = np.random.default_rng(0).random(), np.random.RandomState(0).rand()
    with put_back([DataLoader(data)]):
        data.left.popleft()
        data.seen.add(2)
        data.cache[1] = X
        data.cursor += 1
        data.count += 1
        data.new, inner.number = 1, 2
        data.rng.random(), data.old.rand()
    assert all(getattr(data, name) is value for name, value in held.items())
    assert (data.left, data.seen, data.cache) == (deque([1, 2]), {1}, {})
    assert data.cursor[0] == data.count[0] == 0
    assert inner.number == 1
    assert not hasattr(data, "new")
    assert (data.rng.random(), data.old.rand()) == drawn


def test_large_data_are_not_copied():
    large = torch.zeros(20_000)
    with put_back([DataLoader(Data(large=large))]):
        large += 1
    assert large[0] == 1
