"""What Lightning sees of a data module."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import TensorDataset

from sparse_rnn import data as package
from sparse_rnn.data import LabelledSequences, ReberStrings, SequentialDigits, SequentialMNIST, Splits
from sparse_rnn.data.labelled import divide
from sparse_rnn.errors import UsageError


class Reader(LightningModule):
    """Notes what it is given; nothing learns."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.trained, self.validated = [], []

    def training_step(self, batch, batch_idx):
        self.trained.append((self.current_epoch, *batch))

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch)

    def predict_step(self, batch, batch_idx):
        return batch

    def configure_optimizers(self):
        return []


class Ramps(LabelledSequences):
    """A data set of a user's own, made as the documentation says."""

    input_size, num_classes = 1, 2

    def __init__(self, batch_size: int = 4, seed: int = 0, hold_out: float = 0.0):
        super().__init__(batch_size, seed, hold_out)

    def load(self):
        x = torch.arange(100.0).view(20, 5, 1)
        return Splits(*divide(TensorDataset(x, (x[:, 0, 0] > 50).long()), (12, 4, 4)))


DIVIDED = [
    (SequentialDigits, {}),
    (SequentialMNIST, {"split": "standard"}),
    (SequentialMNIST, {"split": "paper"}),
    (Ramps, {}),
]


@pytest.fixture(params=DIVIDED, ids=lambda param: "-".join([param[0].__name__, *param[1].values()]))
def seeded(request, mnist_files):
    """Makes the data module of a data set that is given and divided, with a seed and a share that is held out."""
    kind, options = request.param
    options = options | ({"root": mnist_files} if kind is SequentialMNIST else {})
    return lambda seed, hold_out=0.0: kind(seed=seed, hold_out=hold_out, **options)


def rows(*splits) -> list[bytes]:
    """What each sample is told by."""
    return [row.numpy().tobytes() for x, _ in splits for row in x]


@pytest.fixture
def trainer(tmp_path) -> Trainer:
    return Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        max_epochs=2,
        num_sanity_val_steps=0,
    )


def joined(batches) -> list[torch.Tensor]:
    return [torch.cat(tensors) for tensors in zip(*batches, strict=True)]


def test_fit_shows_every_sample_once_an_epoch_in_an_order_of_its_own(trainer):
    reader, data = Reader(), SequentialDigits()
    trainer.fit(reader, datamodule=data)
    first, second = (joined(batch for at, *batch in reader.trained if at == epoch) for epoch in range(2))
    x, _ = data.splits.train.tensors
    assert sorted(first[0].tolist()) == sorted(second[0].tolist()) == sorted(x.tolist())
    assert not torch.equal(first[0], second[0])
    assert joined(reader.validated)[0].tolist() == data.splits.val.tensors[0].tolist() * 2


def test_predict_gives_the_test_set_in_order(trainer):
    data = SequentialDigits()
    x, y = joined(trainer.predict(Reader(), datamodule=data))
    assert torch.equal(x, data.splits.test.tensors[0])
    assert torch.equal(y, data.splits.test.tensors[1])


def test_ranks_train_on_different_samples():
    parts = []
    for rank in range(3):
        data = SequentialDigits()
        data.trainer = SimpleNamespace(global_rank=rank, world_size=3, ckpt_path=None, overfit_batches=0)
        parts.append(joined(data.train_dataloader())[0])
    assert [len(part) for part in parts] == [419, 419, 419]
    assert sorted(torch.cat(parts).tolist()) == sorted(data.splits.train.tensors[0].tolist())


def test_divide_is_disjoint_complete_and_keeps_pairs():
    numbers = TensorDataset(torch.arange(10), torch.arange(10) * 2)
    parts = [part.tensors for part in divide(numbers, (5, 3, 2))]
    assert [len(x) for x, _ in parts] == [5, 3, 2]
    assert sorted(torch.cat([x for x, _ in parts]).tolist()) == list(range(10))
    assert all(torch.equal(2 * x, y) for x, y in parts)
    assert parts[0][0].tolist() == [4, 1, 7, 5, 3], "it must not change: results depend on it"


def test_what_hyperparameters_are_chosen_on_is_nothing_that_another_seed_reports_on(seeded):
    tuned = seeded(1000, hold_out=0.1).splits
    seen = rows(tuned.train.tensors, tuned.val.tensors)
    assert len(tuned.val)
    for seed in (0, 1):
        splits = seeded(seed).splits
        assert sorted(seen) == sorted(rows(splits.train.tensors))
        assert set(seen).isdisjoint(rows(splits.val.tensors, splits.test.tensors))


def test_the_seed_decides_the_order_of_the_training_samples(seeded):
    first, again, other = (rows(*seeded(seed).train_dataloader()) for seed in (0, 0, 1))
    assert first == again != other
    assert sorted(first) == sorted(other)


def test_no_labelled_data_set_goes_untried():
    classes = {kind for kind in vars(package).values() if isinstance(kind, type)}
    found = {kind for kind in classes if issubclass(kind, LabelledSequences)} - {LabelledSequences}
    generated = {ReberStrings}  # which have tests of their own
    assert found - generated == {kind for kind, _ in DIVIDED} - {Ramps}


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(batch_size):
    with pytest.raises(UsageError, match=f"batch_size={batch_size}: give the number of samples in a batch"):
        SequentialDigits(batch_size=batch_size)


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1])
def test_a_seed_of_more_than_64_bits_is_refused(seed):
    with pytest.raises(UsageError, match=f"seed={seed}: give a whole number of 64 bits"):
        SequentialDigits(seed=seed)


def test_what_is_held_out_is_the_end_of_the_training_samples_and_nothing_of_the_other_splits_is_read():
    whole, cut = SequentialDigits().splits, SequentialDigits(hold_out=0.25).splits
    parts = [torch.cat(tensors) for tensors in zip(cut.train.tensors, cut.val.tensors, strict=True)]
    assert all(torch.equal(*pair) for pair in zip(parts, whole.train.tensors, strict=True))
    assert (len(cut.train), len(cut.val)) == (943, 314)
    assert len({id(tensor) for split in cut for tensor in split.tensors}) == 6
    with pytest.raises(UsageError, match="hold_out=1"):
        SequentialDigits(hold_out=1)
