"""Whatever the loader is: what scoring has read is trained on, once, in the order in which it comes without scoring."""

import random
from itertools import count

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, seed_everything
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

from sparse_rnn import DynamicSparsity, OneShotPruning
from sparse_rnn.data import BatchLoader
from sparse_rnn.data.loaders import go_on_where_stopped
from sparse_rnn.pruning.schedules import CosineDecay

SAMPLES, SIZE = 24, 4
X = torch.randn(SAMPLES, 5, 3, generator=torch.Generator().manual_seed(0))

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*only.*training samples to be had"),
    pytest.mark.filterwarnings("ignore:rescale=.chi."),
]


class Project(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 6, batch_first=True)

    def training_step(self, batch, batch_idx):
        x, _ = batch
        loss = self.rnn(x)[0].square().mean()
        x.zero_()  # what is trained on must not have been written into before
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Seen(Callback):
    """Notes the samples of every training batch, and what is in them."""

    def __init__(self):
        self.numbers, self.values = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        parts = batch if isinstance(batch[0], (list, tuple)) else [batch]
        self.numbers.append([number for _, numbers in parts for number in numbers.tolist()])
        self.values.append(torch.cat([x.detach().clone().flatten() for x, _ in parts]))


def batch(first):
    return X[first : first + SIZE].clone(), torch.arange(first, first + SIZE)


def generator():
    yield from (batch(first) for first in range(0, SAMPLES, SIZE))


class Stream(IterableDataset):
    """Can be read once: a second iterator goes on where the first one is."""

    def __init__(self):
        self.source = iter(range(SAMPLES))

    def __iter__(self):
        yield from ((X[number], number) for number in self.source)


class Again(IterableDataset):
    """Begins anew with every iterator."""

    def __iter__(self):
        yield from zip(X, range(SAMPLES), strict=True)


class Table(Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return X[index], index


class Next(Table):
    """Gives the next sample, whichever is asked for."""

    def __init__(self, source):
        self.source = source

    def __getitem__(self, index):
        return super().__getitem__(int(next(self.source)))


class Counting(Table):
    """The same, with a position that is a number, an array or what is left of a list."""

    def __init__(self):
        self.position, self.cursor, self.left = 0, np.zeros(1, int), list(range(SAMPLES))

    def __getitem__(self, index):
        self.position += 1
        self.cursor += 1
        number = self.left.pop(0)
        assert self.position - 1 == self.cursor[0] - 1 == number
        if not self.left:
            self.__init__()
        return super().__getitem__(number)


SHARED = iter([])


class OfTheModule(Table):
    def __getitem__(self, index):
        return super().__getitem__(next(SHARED))


class InItsClass(Table):
    source = count()

    def __getitem__(self, index):
        return super().__getitem__(next(self.source))


class Backwards(Sampler):
    """A project's own: the order is that of its last iterator, backwards."""

    def __init__(self):
        self.order = list(range(SAMPLES))

    def __iter__(self):
        self.order.reverse()
        yield from self.order

    def __len__(self):
        return SAMPLES


class OwnLoader:
    """Knows its length, and goes on where it is."""

    def __init__(self):
        self.batches = list(generator()) + list(generator())

    def __iter__(self):
        for _ in range(SAMPLES // SIZE):
            yield self.batches.pop(0)

    def __len__(self):
        return SAMPLES // SIZE


class OwnDataLoader(DataLoader):
    def __iter__(self):
        self.passes = getattr(self, "passes", 0) + 1
        yield from super().__iter__()


OPEN = []


@pytest.fixture(autouse=True)
def closed():
    yield
    while OPEN:
        OPEN.pop().close()


def lines(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("\n".join(str(number % SAMPLES) for number in range(4 * SAMPLES)))
    OPEN.append(path.open())
    return OPEN[-1]


def shared():
    global SHARED
    SHARED = iter(range(10 * SAMPLES))
    SHARED = (number % SAMPLES for number in SHARED)
    return OfTheModule()


def in_its_class():
    InItsClass.source = (number % SAMPLES for number in count())
    return InItsClass()


def collating(source):
    def collate(samples):
        return torch.stack([x for x, _ in samples]), torch.tensor([next(source) for _ in samples])

    return collate


def again_and_again():
    return (number % SAMPLES for number in count())


# Loader, and the number of epochs that there is data for.
LOADERS = {
    "generator": (lambda path: generator(), 1),
    "iterator": (lambda path: iter(list(generator())), 1),
    "stream": (lambda path: DataLoader(Stream(), SIZE), 1),
    "stream in a worker": (lambda path: DataLoader(Stream(), SIZE, num_workers=1), 1),
    "iterable data set": (lambda path: DataLoader(Again(), SIZE), 2),
    "data set with an iterator": (lambda path: DataLoader(Next(again_and_again()), SIZE), 2),
    "data set with an open file": (lambda path: DataLoader(Next(lines(path)), SIZE), 2),
    "data set with a position": (lambda path: DataLoader(Counting(), SIZE), 2),
    "iterator of the module": (lambda path: DataLoader(shared(), SIZE), 2),
    "iterator of the class": (lambda path: DataLoader(in_its_class(), SIZE), 2),
    "collation with an iterator": (
        lambda path: DataLoader(Table(), SIZE, collate_fn=collating(again_and_again())), 2
    ),
    "sampler of one's own": (lambda path: DataLoader(Table(), SIZE, sampler=Backwards()), 2),
    "batch sampler": (lambda path: DataLoader(Table(), batch_sampler=list(torch.arange(SAMPLES).split(SIZE))), 2),
    "loader of one's own": (lambda path: OwnLoader(), 2),
    "DataLoader of one's own": (lambda path: OwnDataLoader(Table(), SIZE), 2),
    "shuffled": (lambda path: DataLoader(Table(), SIZE, shuffle=True), 2),
    "workers": (lambda path: DataLoader(Table(), SIZE, shuffle=True, num_workers=1), 2),
    "persistent workers": (
        lambda path: DataLoader(Table(), SIZE, shuffle=True, num_workers=1, persistent_workers=True), 2
    ),
    "stream in a persistent worker": (
        lambda path: DataLoader(Again(), SIZE, num_workers=1, persistent_workers=True), 2
    ),
    "two loaders": (lambda path: CombinedLoader([DataLoader(Table(), SIZE), generator()], "min_size"), 1),
    "a longer and a shorter": (
        lambda path: CombinedLoader([DataLoader(Again(), SIZE), DataLoader(Table(), 2 * SIZE)], "max_size_cycle"), 2
    ),
    "ours": (lambda path: BatchLoader(TensorDataset(X, torch.arange(SAMPLES)), SIZE, shuffle=True), 2),
}  # fmt: skip


class Paired(Project):
    def training_step(self, batch, batch_idx):
        return sum(super(Paired, self).training_step(part, batch_idx) for part in batch)


def trained(train, path, name, callbacks, **options):
    build, epochs = LOADERS[name]
    seen = Seen()
    seed_everything(0)
    options = {"max_epochs": epochs} | options
    module = Paired if name in ("two loaders", "a longer and a shorter") else Project
    train(module, [*callbacks, seen], data=build(path), **options)
    return seen


PRUNING = {
    "nothing": lambda: OneShotPruning(0.0, num_samples=10),
    "nothing, chosen by scores": lambda: OneShotPruning(1e-9, num_samples=10),
    "jacobian": lambda: OneShotPruning(0.5, num_samples=10),
    "more rounds": lambda: OneShotPruning(0.5, "snip", num_samples=10, rounds=2),
    "magnitude": lambda: OneShotPruning(0.5, "magnitude", num_samples=10),
    "rescaled": lambda: OneShotPruning(0.5, "magnitude", num_samples=10, rescale="chi", min_kept=1),
    "all of it": lambda: OneShotPruning(0.5, num_samples=1000),
    "dynamic": lambda: DynamicSparsity(schedule=CosineDecay(every=2), sparsity=0.5, num_samples=10),
}


@pytest.fixture(scope="module")
def alone():
    """Gives what a training without us sees, which each data set makes once."""
    seen = {}

    def alone(train, path, name):
        if name not in seen:
            seen[name] = trained(train, path, name, [])
        return seen[name]

    return alone


@pytest.mark.each_value
@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("pruning", ["nothing", "nothing, chosen by scores", "jacobian", "magnitude", "all of it"])
def test_training_sees_the_batches_that_it_sees_without_us(train, tmp_path, alone, name, pruning):
    alone = alone(train, tmp_path, name)
    seen = trained(train, tmp_path, name, [PRUNING[pruning]()])
    assert seen.numbers == alone.numbers
    assert all(map(torch.equal, seen.values, alone.values))
    epochs = LOADERS[name][1]
    if "longer" not in name:
        of_each = len(seen.numbers) // epochs
        for epoch in range(epochs):
            numbers = sorted(set(sum(seen.numbers[epoch * of_each : (epoch + 1) * of_each], [])))
            assert numbers == list(range(SAMPLES))


@pytest.mark.each_value
@pytest.mark.parametrize("name", ["generator", "stream", "two loaders", "persistent workers"])
@pytest.mark.parametrize("pruning", ["more rounds", "rescaled", "dynamic"])
def test_so_it_does_however_often_the_samples_are_looked_at(train, tmp_path, name, pruning):
    options = {"limit_train_batches": 6} if pruning == "dynamic" else {}  # its schedule is a share of the training
    alone = trained(train, tmp_path, name, [], **options)
    assert trained(train, tmp_path, name, [PRUNING[pruning]()], **options).numbers == alone.numbers


@pytest.mark.parametrize("name", ["generator", "stream", "iterable data set", "loader of one's own", "two loaders"])
def test_two_callbacks_read_the_same_first_batches(train, tmp_path, name):
    callbacks = [OneShotPruning(0.5, num_samples=size, kernels=[part]) for size, part in [(6, "*ih*"), (14, "*hh*")]]
    alone = trained(train, tmp_path, name, [])
    assert trained(train, tmp_path, name, callbacks).numbers == alone.numbers


@pytest.mark.parametrize("name", ["generator", "stream", "loader of one's own", "stream in a worker"])
def test_no_more_is_read_than_an_epoch_trains_on(train, tmp_path, name):
    alone = trained(train, tmp_path, name, [], max_epochs=2, limit_train_batches=2)
    assert trained(train, tmp_path, name, [OneShotPruning(0.5)], max_epochs=2, limit_train_batches=2).numbers == (
        alone.numbers
    )


@pytest.mark.parametrize(
    "name", ["stream", "loader of one's own", "iterable data set", "shuffled", "persistent workers"]
)
def test_so_it_does_where_loaders_are_made_anew_or_training_goes_on(train, tmp_path, name):
    class Own(Project):
        def train_dataloader(self):
            if not hasattr(self, "loader"):
                self.loader = LOADERS[name][0](tmp_path)
            return self.loader

    def run(callbacks):
        seen, module = Seen(), Own()
        options = {"reload_dataloaders_every_n_epochs": 1, "max_epochs": 2, "limit_train_batches": 3}
        trainer = train(lambda: module, [*callbacks, seen], data=None, **options)
        trainer.fit_loop.max_epochs = 3
        trainer.fit(Own())
        return seen.numbers

    assert run([OneShotPruning(0.5, num_samples=10)]) == run([])


class Noisy(IterableDataset):
    """Draws from all global generators."""

    def __iter__(self):
        for number in range(SAMPLES):
            yield X[number] + torch.rand(1) + float(np.random.rand()) + random.random(), number  # noqa: NPY002 - the global generator is what the test is about


class Draws(Callback):
    """Draws the project's next random numbers when training begins."""

    def on_train_start(self, trainer, pl_module):
        self.drawn = [torch.rand(1).item(), np.random.rand(), random.random()]  # noqa: NPY002 - the global generator is what the test is about


def noise(train, seed, pruning):
    """What the first batch holds beside the samples, and the project's next random numbers."""
    seen, draws = Seen(), Draws()

    class Seeded(Project):
        def __init__(self):
            super().__init__()
            seed_everything(seed)

    train(Seeded, [*pruning, draws, seen], data=DataLoader(Noisy(), SIZE, num_workers=0), max_epochs=1)
    return seen.values, draws.drawn


def test_what_a_stream_draws_while_it_is_read_is_drawn_by_nobody_else(train):
    def later(values):
        return torch.stack(values[1:])  # Lightning has read the first batch, to know whether there is one

    values, drawn = noise(train, 1, [OneShotPruning(0.5, num_samples=12)])
    again, _ = noise(train, 1, [OneShotPruning(0.5, num_samples=12)])
    other, _ = noise(train, 2, [OneShotPruning(0.5, num_samples=12)])
    alone, expected = noise(train, 1, [])
    assert drawn == expected
    assert torch.equal(later(values), later(again))
    assert not torch.equal(later(values)[:2], later(other)[:2])
    noises = later(values) - X[SIZE:].unflatten(0, (-1, SIZE)).flatten(1)
    assert len(noises.unflatten(1, (SIZE, -1))[..., 0].unique()) == SAMPLES - SIZE
    assert len(alone) == len(values)


class Stateful(OwnLoader):
    passes = 0

    def __init__(self):
        self.position = 0

    def __iter__(self):
        while self.position < SAMPLES:
            self.position += SIZE
            yield batch(self.position - SIZE)
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


def ours():
    return BatchLoader(TensorDataset(X.clone(), torch.arange(SAMPLES)), SIZE)


@pytest.mark.each_value
@pytest.mark.parametrize(("build", "stopped"), [(Stateful, 2), (Stateful, 8), (ours, 2), (ours, 6), (ours, 8)])
@pytest.mark.parametrize("pruning", ["magnitude", "jacobian", "more rounds", "all of it"])
def test_a_run_resumed_from_a_dense_one_goes_on_as_without_us(train, tmp_path, build, pruning, stopped):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == stopped:
                trainer.save_checkpoint(tmp_path / "saved.ckpt")

    class Own(Project):
        def train_dataloader(self):
            if build is ours:
                go_on_where_stopped(self.trainer)
            return build()

    def run(callbacks, **options):
        seen = Seen()
        seed_everything(0)
        train(Own, [*callbacks, seen], data=None, max_epochs=3, **options)
        return seen.numbers

    run([Stop()])
    alone = run([], ckpt_path=tmp_path / "saved.ckpt")
    assert run([PRUNING[pruning]()], ckpt_path=tmp_path / "saved.ckpt") == alone
    assert alone[0] == list(range(stopped % 6 * SIZE, stopped % 6 * SIZE + SIZE))


def test_the_position_that_a_loader_saves_is_that_of_training(train, tmp_path):
    class Saved(Callback):
        def __init__(self):
            self.positions = []

        def on_train_batch_end(self, trainer, *args):
            saved = trainer.fit_loop.state_dict()["state_dict"]["combined_loader"]
            self.positions.append(saved[0]["position"])

    def positions(callbacks):
        saved = Saved()
        train(Project, [*callbacks, saved], data=Stateful(), max_epochs=2)
        return saved.positions

    assert positions([OneShotPruning(0.5, num_samples=10)]) == positions([])
