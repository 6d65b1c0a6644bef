"""The batches that are borrowed to score on, and the loader they come from."""

import random

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from sparse_rnn import JacobianSpectrum, OneShotPruning

SAMPLES = torch.randn(40, 6, 3, generator=torch.Generator().manual_seed(0))


class Project(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 6, batch_first=True)

    def training_step(self, batch, batch_idx):
        output, _ = self.rnn(batch)
        return (output.data if isinstance(output, PackedSequence) else output).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


class Seeing(JacobianSpectrum):
    """Notes the batches it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = []

    def score(self, module, batch, *args, **kwargs):
        self.batches.append(batch)
        return super().score(module, batch, *args, **kwargs)


def scored(train, data, num_samples, build=Project, **options):
    criterion = Seeing()
    callback = OneShotPruning(sparsity=0.5, criterion=criterion, num_samples=num_samples)
    train(build, [callback], data=data, max_epochs=1, **options)
    return criterion.batches


def pack(sequences):
    return pack_sequence(sequences, enforce_sorted=False)


def test_packed_sequences_are_counted_by_sequence_and_left_whole(train):
    data = DataLoader([x[: 2 + i % 4] for i, x in enumerate(SAMPLES)], batch_size=8, collate_fn=pack)
    batches = scored(train, data, num_samples=12)
    assert [int(batch.batch_sizes[0]) for batch in batches] == [8, 8]


class Described(Project):
    def training_step(self, batch, batch_idx):
        assert len(batch["lengths"]) == len(batch["x"])
        return super().training_step(batch["x"], batch_idx)


def test_a_batch_that_cannot_be_cut_consistently_is_left_whole(train):
    def collate(samples):
        return {"x": torch.stack(samples), "lengths": [len(sample) for sample in samples]}

    [batch] = scored(train, DataLoader(list(SAMPLES), 16, collate_fn=collate), num_samples=10, build=Described)
    assert len(batch["x"]) == 16


def test_a_dict_of_tensors_is_cut_to_the_samples_asked_for(train):
    def collate(samples):
        return {"x": torch.stack(samples), "lengths": torch.tensor([len(sample) for sample in samples])}

    data = DataLoader(list(SAMPLES), 16, collate_fn=collate)
    first, second = scored(train, data, num_samples=20, build=Described)
    assert torch.equal(torch.cat([first["x"], second["x"]]), SAMPLES[:20])
    assert len(second["lengths"]) == 4


def test_limits_of_the_trainer_do_not_limit_the_samples(train):
    assert len(scored(train, DataLoader(SAMPLES, 8), num_samples=24, limit_train_batches=1)) == 3


class Paired(Project):
    def training_step(self, batch, batch_idx):
        return super().training_step(torch.cat([part for part in batch if part is not None]), batch_idx)


def test_loaders_are_combined_as_the_project_combines_them(train):
    data = CombinedLoader([DataLoader(SAMPLES[:8], 8), DataLoader(SAMPLES[8:24], 8)], "max_size_cycle")
    batches = scored(train, data, num_samples=16, build=Paired)
    assert torch.equal(torch.cat([second for _, second in batches]), SAMPLES[8:24])
    assert all(torch.equal(first, SAMPLES[:8]) for first, _ in batches)


class Transferred(Project):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch[0]


def test_the_projects_transfer_hooks_are_run(train):
    assert scored(train, DataLoader(TensorDataset(SAMPLES), 8), num_samples=8, build=Transferred)


class Epochs(Sampler):
    """Another order every time it is iterated."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self):
        self.epoch += 1
        yield from random.Random(self.epoch).sample(range(len(SAMPLES)), len(SAMPLES))

    def __len__(self):
        return len(SAMPLES)


class Noisy(Dataset):
    """Augments with generators of its own."""

    def __init__(self) -> None:
        self.random, self.generator = random.Random(0), torch.Generator().manual_seed(0)

    def __len__(self):
        return len(SAMPLES)

    def __getitem__(self, index):
        return SAMPLES[index] * self.random.random() + torch.rand(1, generator=self.generator)


def test_samplers_and_datasets_with_a_state_of_their_own_do_not_notice(train):
    def trained(callbacks):
        data = DataLoader(Noisy(), batch_size=8, sampler=Epochs())
        return train(Project, callbacks, data=data).lightning_module.rnn.weight_hh_l0

    assert torch.equal(trained([]), trained([OneShotPruning(sparsity=0.0, num_samples=20)]))
