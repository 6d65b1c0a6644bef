"""What Lightning sees of a data module."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from sparse_rnn.data import SequentialDigits
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


def test_training_batches_need_no_trainer_and_depend_on_the_seed():
    first, again, other = (joined(SequentialDigits(seed=seed).train_dataloader())[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_ranks_train_on_different_samples():
    parts = []
    for rank in range(3):
        data = SequentialDigits()
        data.trainer = SimpleNamespace(global_rank=rank, world_size=3, ckpt_path=None, overfit_batches=0)
        parts.append(joined(data.train_dataloader())[0])
    assert [len(part) for part in parts] == [419, 419, 419]
    assert sorted(torch.cat(parts).tolist()) == sorted(data.splits.train.tensors[0].tolist())


def test_divide_is_disjoint_complete_and_keeps_pairs():
    numbers = torch.utils.data.TensorDataset(torch.arange(10), torch.arange(10) * 2)
    parts = [part.tensors for part in divide(numbers, (5, 3, 2), seed=0)]
    assert [len(x) for x, _ in parts] == [5, 3, 2]
    assert sorted(torch.cat([x for x, _ in parts]).tolist()) == list(range(10))
    assert all(torch.equal(2 * x, y) for x, y in parts)


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
