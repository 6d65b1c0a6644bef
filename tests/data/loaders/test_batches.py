from itertools import chain

import pytest
import torch
from torch.utils.data import TensorDataset

from sparse_rnn.data import BatchLoader
from sparse_rnn.errors import UsageError


def numbers(size: int) -> TensorDataset:
    return TensorDataset(torch.arange(size, dtype=torch.float32).view(-1, 1), torch.arange(size))


def contents(loader: BatchLoader, epoch: int = 0) -> list[list[int]]:
    loader.batch_sampler.sampler.set_epoch(epoch)
    return [y.tolist() for _, y in loader]


def order(loader: BatchLoader, epoch: int = 0) -> list[int]:
    return list(chain(*contents(loader, epoch)))


def test_unshuffled_batches_are_the_data_in_order():
    loader = BatchLoader(numbers(10), 4)
    assert contents(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(loader) == 3


def test_tensors_stay_aligned_and_keep_their_types():
    for x, y in BatchLoader(numbers(10), 4, shuffle=True):
        assert (x.dtype, y.dtype, x.shape) == (torch.float32, torch.int64, (len(y), 1))
        assert torch.equal(x[:, 0].long(), y)


def test_an_epoch_is_a_permutation_decided_by_seed_and_epoch():
    epochs = {
        (seed, epoch): order(BatchLoader(numbers(50), 8, shuffle=True, seed=seed), epoch)
        for seed in (0, 10)
        for epoch in (0, 1)
    }
    assert all(sorted(samples) == list(range(50)) for samples in epochs.values())
    assert len({tuple(samples) for samples in epochs.values()}) == 4
    assert order(BatchLoader(numbers(50), 8, shuffle=True, seed=10), 1) == epochs[10, 1]


def test_the_global_random_state_is_neither_read_nor_moved():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = contents(BatchLoader(numbers(50), 8, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert contents(BatchLoader(numbers(50), 8, shuffle=True)) == first


def test_ranks_share_an_epoch_without_overlap():
    ranks = [BatchLoader(numbers(12), 4, shuffle=True, rank=rank, world_size=3) for rank in range(3)]
    parts = [order(loader, epoch=1) for loader in ranks]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert sorted(chain(*parts)) == list(range(12))


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("taken", range(3))
def test_a_restored_loader_goes_on_where_the_saved_one_stood(size, taken):
    loader = BatchLoader(numbers(size), 3, shuffle=True)
    batches = iter(loader)
    seen = [next(batches)[1].tolist() for _ in range(taken)]
    restored = BatchLoader(numbers(size), 3, shuffle=True)
    restored.load_state_dict(loader.state_dict())
    assert seen + [y.tolist() for _, y in restored] == contents(loader)
    assert contents(restored) == contents(loader), "only the first pass is shortened"


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(batch_size):
    with pytest.raises(UsageError, match=f"batch_size={batch_size}: give the number of samples in a batch"):
        BatchLoader(numbers(8), batch_size)


def test_a_pass_takes_the_order_of_the_epoch_in_which_it_is_first_read():
    loader = BatchLoader(numbers(20), 20, shuffle=True)
    expected = contents(loader, epoch=3)
    loader.batch_sampler.sampler.set_epoch(0)
    opened_before = iter(loader)
    loader.batch_sampler.sampler.set_epoch(3)
    assert [y.tolist() for _, y in opened_before] == expected


def test_batches_can_be_made_into_something_else():
    loader = BatchLoader(numbers(5), 2, shuffle=True, collate=lambda samples: {"x": samples[0], "y": samples[1]})
    plain = BatchLoader(numbers(5), 2, shuffle=True)
    assert [batch["y"].tolist() for batch in loader] == contents(plain)
    loader.load_state_dict({"position": 1, "batches": 3})
    assert [batch["y"].tolist() for batch in loader] == contents(plain)[1:]
