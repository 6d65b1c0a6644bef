"""The batches that are borrowed to score on, and the loader they come from."""

import random
from contextlib import nullcontext

import pytest
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


class TimeMajor(Project):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 6)


class Ragged(Project):
    def training_step(self, batch, batch_idx):
        return super().training_step(pack(batch), batch_idx)


class Looping(TimeMajor):
    """Runs a cell over time."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRUCell(3, 6)

    def training_step(self, batch, batch_idx):
        h = None
        for x in batch:
            h = self.rnn(x, h)
        return h.square().mean()


class Transposing(TimeMajor):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch.transpose(0, 1), batch_idx)


class Unbatched(Project):
    def training_step(self, batch, batch_idx):
        return self.rnn(batch)[0].square().mean()


def whole(*batches):
    """A loader that gives batches as they are."""
    return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


def ragged(size):
    return [torch.randn(3 + i % 4, 3) for i in range(size)]


@pytest.mark.parametrize("build", [TimeMajor, Looping])
@pytest.mark.parametrize("steps", [5, 40, 4])  # as many as there are samples: either could be time
def test_time_major_batches_are_counted_by_their_samples_and_never_cut_in_time(train, build, steps):
    batches = scored(train, whole(*(torch.randn(steps, 4, 3) for _ in range(9))), num_samples=10, build=build)
    assert [tuple(batch.shape) for batch in batches] == [(steps, 4, 3)] * 3


def test_lists_of_sequences_are_counted_and_cut_by_their_sequences(train):
    batches = scored(train, whole(*(ragged(8) for _ in range(9))), num_samples=20, build=Ragged)
    assert [len(batch) for batch in batches] == [8, 8, 4]


def sequences_run(train, data, num_samples, build):
    """How many sequences the layers ran on, call by call, up to the first step of training."""
    counts = []

    class Counted(build):
        def training_step(self, batch, batch_idx):
            handle = self.rnn.register_forward_hook(lambda module, args, output: counts.append(args[0]))
            try:
                return super().training_step(batch, batch_idx)
            finally:
                handle.remove()

    callback = OneShotPruning(sparsity=0.5, criterion="snip", num_samples=num_samples)
    train(Counted, [callback], data=data, max_epochs=1, limit_train_batches=1)
    return [int(x.batch_sizes[0]) if isinstance(x, PackedSequence) else x.shape for x in counts[:-1]]


def test_a_first_batch_that_is_too_large_is_cut_before_a_layer_runs_on_it(train):
    assert sequences_run(train, whole(torch.randn(32, 5, 3)), 10, Project) == [(10, 5, 3)]
    assert sequences_run(train, whole(torch.randn(32, 5, 3)), 10, Transposing) == [(5, 10, 3)]
    assert sequences_run(train, whole(ragged(32)), 10, Ragged) == [10]


def test_cutting_leaves_scores_as_if_the_batch_had_been_of_that_size(train):
    def mask(data):
        callback = OneShotPruning(0.5, num_samples=10)
        train(Dropping, [callback], data=data, max_epochs=1)
        return callback.masks.digest()

    class Dropping(Project):
        def training_step(self, batch, batch_idx):
            return super().training_step(nn.functional.dropout(batch), batch_idx)

    assert mask(whole(SAMPLES)) == mask(whole(SAMPLES[:10]))


def test_a_sequence_without_a_batch_is_one_sample(train):
    assert len(scored(train, whole(*(torch.randn(7, 3) for _ in range(9))), num_samples=4, build=Unbatched)) == 4


@pytest.mark.parametrize("samples", [40, 8])
def test_fewer_samples_are_taken_and_said(train, samples):
    with pytest.warns(UserWarning, match=f"num_samples=64, but there are only {samples} training samples"):
        batches = scored(train, DataLoader(SAMPLES[:samples], 8), num_samples=64)
    assert torch.equal(torch.cat(batches), SAMPLES[:samples])


@pytest.mark.parametrize("criterion", ["jacobian", "magnitude"])
def test_no_sample_at_all_is_refused_where_one_is_needed(train, criterion):
    def fit():
        train(Project, [OneShotPruning(0.5, criterion)], data=iter([]), max_epochs=1)

    refused = pytest.raises(ValueError, match="gives no batch to score the weights on")
    with nullcontext() if criterion == "magnitude" else refused:
        fit()


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

    for sparsity in (0.0, 1e-9):
        assert torch.equal(trained([]), trained([OneShotPruning(sparsity, num_samples=20)]))
