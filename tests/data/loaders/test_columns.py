"""Columns of a text against plain slices of it."""

import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from sparse_rnn.data import ColumnLoader, DataError
from sparse_rnn.data.loaders import columns
from sparse_rnn.data.loaders.columns import IGNORED
from sparse_rnn.errors import UsageError

MARK = 0


def text(size: int) -> np.ndarray:
    """Tokens that tell where they stand, from 1 on."""
    return np.arange(1, size + 1, dtype=np.int32)


def sentences(number: int) -> np.ndarray:
    """Sentences of different lengths, no two alike, each with MARK at its end; the last one is cut short."""
    lengths = np.random.default_rng(1).integers(0, 7, number)
    words = np.arange(1, lengths.sum() + 1)
    return np.concatenate([np.append(part, MARK) for part in np.split(words, lengths.cumsum())])[:-1].astype(np.int32)


def joined(loader: ColumnLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole columns: inputs and targets, [B, column_length]."""
    x, y = (torch.cat(parts, dim=1) for parts in zip(*loader, strict=True))
    return x, y


def as_lists(batches) -> list:
    return [[part.tolist() for part in batch] for batch in batches]


def ranks(world_size: int, *args, **kwargs) -> list[ColumnLoader]:
    return [ColumnLoader(*args, rank=rank, world_size=world_size, **kwargs) for rank in range(world_size)]


@pytest.mark.parametrize("read_ahead", [1, 3, 64])
@pytest.mark.parametrize("size", [101, 103, 104])
@pytest.mark.parametrize("bptt", [1, 5, 25, 40])
def test_training_columns_are_runs_of_the_text(size, bptt, read_ahead, monkeypatch):
    monkeypatch.setattr(columns, "READ_AHEAD", read_ahead)
    loader = ColumnLoader(text(size), 4, bptt)
    x, y = joined(loader)
    length = (size - 1) // 4
    expected = torch.arange(4 * length).view(4, length) + 1
    assert torch.equal(x, expected)
    assert torch.equal(y, expected + 1)
    steps = [x.shape[1] for x, _ in loader]
    assert steps[:-1] == [bptt] * (len(loader) - 1)
    assert 0 < steps[-1] <= bptt


def test_batches_are_pairs_of_int64_that_share_no_memory():
    for x, y in ColumnLoader(text(100), 3, 4):
        assert x.dtype == y.dtype == torch.int64
        assert x.is_contiguous()
        assert y.is_contiguous()
        x.zero_()
        assert y.all()


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_training_ranks_own_contiguous_columns_in_order(world_size):
    parts = ranks(world_size, text(1000), 10, 7)
    assert {len(part) for part in parts} == {len(ColumnLoader(text(1000), 10, 7))}
    x, y = (torch.cat(tensors) for tensors in zip(*map(joined, parts), strict=True))
    whole_x, whole_y = joined(ColumnLoader(text(1000), 10, 7))
    assert torch.equal(x, whole_x)
    assert torch.equal(y, whole_y)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("size", [7, 9, 10, 100, 101, 102])
def test_padded_columns_have_every_target_once_on_any_number_of_ranks(size, world_size):
    parts = ranks(world_size, text(size), 6, 4, pad=True)
    assert len({len(part) for part in parts}) == 1, "ranks that wait for each other must not wait in vain"
    x, y = (torch.cat(tensors) for tensors in zip(*map(joined, parts), strict=True))
    counted = y != IGNORED
    assert y[counted].tolist() == list(range(2, size + 1))
    assert torch.equal(x[counted] + 1, y[counted])
    assert set(x[~counted].tolist()) <= {0, size}, "padding, and the last token, which nothing follows"


def resident(file: str) -> int:
    """Bytes of a memory map that are in memory."""
    maps = Path("/proc/self/smaps").read_text().split(file, 1)[1]
    return int(maps.split("Rss:", 1)[1].split("kB", 1)[0]) * 1024


def test_a_rank_reads_no_page_of_the_others(tmp_path):
    if sys.platform != "linux":
        pytest.skip("only Linux says which pages of a memory map were read")
    size, world_size = 1 << 22, 4
    np.lib.format.open_memmap(tmp_path / "text.npy", "w+", np.int32, (size,))[:] = 1
    ids = np.load(tmp_path / "text.npy", mmap_mode="r")
    loader = ColumnLoader(ids, 8, 4096, rank=1, world_size=world_size)
    share = size * 4 / world_size
    # The kernel maps a little more around what is read.
    assert resident("text.npy") < 0.1 * share, "before the first batch"
    for _ in loader:
        pass
    assert share <= resident("text.npy") < 1.1 * share


@pytest.mark.parametrize("mark", [None, MARK])
@pytest.mark.parametrize("taken", range(5))
def test_a_restored_loader_goes_on_where_the_saved_one_stood(taken, mark, monkeypatch):
    monkeypatch.setattr(columns, "READ_AHEAD", 2)
    whole = as_lists(ColumnLoader(sentences(100), 3, 20, sentence_mark=mark))
    assert len(whole) > 5
    loader = ColumnLoader(sentences(100), 3, 20, sentence_mark=mark)
    batches = iter(loader)
    seen = as_lists(next(batches) for _ in range(taken))
    restored = ColumnLoader(sentences(100), 3, 20, sentence_mark=mark)
    restored.load_state_dict(loader.state_dict())
    assert seen + as_lists(restored) == whole
    assert as_lists(restored) == whole, "only the first pass is shortened"


def split_at_marks(tokens) -> list[tuple[int, ...]]:
    """Pieces that begin with a mark, but for the first."""
    pieces: list[list[int]] = [[]]
    for token in tokens:
        if token == MARK:
            pieces.append([])
        pieces[-1].append(int(token))
    return [tuple(piece) for piece in pieces]


def shuffled(epoch: int = 0, seed: int = 0, rank: int = 0, world_size: int = 1) -> list[tuple[int, ...]]:
    """What a rank reads of 300 sentences, in pieces."""
    loader = ColumnLoader(
        sentences(300), 2 * world_size, 11, rank=rank, world_size=world_size, sentence_mark=MARK, seed=seed
    )
    loader.batch_sampler.sampler.set_epoch(epoch)
    x, y = joined(loader)
    assert x[1, 0] == y[0, -1]
    assert torch.equal(x[:, 1:], y[:, :-1])
    return split_at_marks([*x.flatten().tolist(), int(y[-1, -1])])


@pytest.mark.parametrize("world_size", [1, 3])
def test_shuffled_sentences_are_whole_and_come_once(world_size):
    for rank in range(world_size):
        plain = ColumnLoader(sentences(300), 2 * world_size, 11, rank=rank, world_size=world_size)
        x, y = joined(plain)
        expected = split_at_marks([*x.flatten().tolist(), int(y[-1, -1])])
        found = shuffled(rank=rank, world_size=world_size)
        assert sorted(found) == sorted(expected)
        assert found != expected
        assert (found[0], found[-1]) == (expected[0], expected[-1])


def test_seed_epoch_and_rank_alone_decide_the_order():
    before = torch.get_rng_state()
    orders = {(seed, epoch): shuffled(epoch, seed) for seed in (0, 1) for epoch in (0, 1)}
    assert len(set(map(tuple, orders.values()))) == 4
    assert torch.equal(torch.get_rng_state(), before)
    assert shuffled(1, 1) == orders[1, 1]


def test_ranks_draw_orders_of_their_own():
    same_text = np.tile(sentences(50), 2)
    orders = [list(chain(*as_lists(loader))) for loader in ranks(2, np.append(same_text, 1), 2, 11, sentence_mark=MARK)]
    assert orders[0] != orders[1]


def test_a_pass_keeps_the_order_of_the_epoch_in_which_it_was_first_read():
    loader = ColumnLoader(sentences(100), 2, 3, sentence_mark=MARK)
    opened = iter(loader)
    loader.batch_sampler.sampler.set_epoch(3)
    expected = as_lists(loader)
    found = as_lists([next(opened)])
    loader.batch_sampler.sampler.set_epoch(4)
    assert found + as_lists(opened) == expected
    assert as_lists(loader) != expected


@pytest.mark.parametrize("few", [[1, 2, 3, 4], [MARK, 1, 2, 3], [1, MARK, 2, MARK]])
def test_text_of_few_sentences_stays_as_it_is(few):
    x, y = joined(ColumnLoader(np.array(few, np.int32), 1, 2, sentence_mark=MARK))
    assert (x[0].tolist(), y[0].tolist()) == (few[:-1], few[1:])


def test_too_short_a_text_is_refused():
    assert len(ColumnLoader(text(11), 10, 5)) == 1
    with pytest.raises(DataError, match=r"A text of 10 tokens is too short for 10 columns: lower batch_size"):
        ColumnLoader(text(10), 10, 5)


def test_more_ranks_than_columns_and_windows_of_no_step_are_refused():
    with pytest.raises(UsageError, match="bptt=0: give the number of steps in a batch"):
        ColumnLoader(text(100), 3, 0)
    with pytest.raises(UsageError, match=r"3 columns do not go round 4 ranks: .*eval_batch_size"):
        ColumnLoader(text(100), 3, 5, pad=True, world_size=4)
