"""Windows of a text against plain slices of it."""

import numpy as np
import pytest
import torch

from sparse_rnn.data import DataError
from sparse_rnn.data.loaders import WindowLoader
from sparse_rnn.data.loaders.columns import IGNORED
from sparse_rnn.data.loaders.windows import check_share
from sparse_rnn.errors import UsageError


def text(size: int) -> np.ndarray:
    """Tokens that tell where they stand, from 1 on."""
    return np.arange(1, size + 1, dtype=np.int32)


def joined(loader: WindowLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """All windows: inputs and targets, [windows, bptt]."""
    x, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
    return x, y


@pytest.mark.parametrize("size", [2, 100, 101, 102, 105])
@pytest.mark.parametrize(("rows", "bptt"), [(1, 1), (3, 5), (64, 20)])
def test_the_whole_of_a_text_is_each_target_once_and_each_input_the_token_before(size, rows, bptt):
    x, y = joined(WindowLoader(text(size), 1.0, rows, bptt))
    counts = y != IGNORED
    assert y[counts].tolist() == list(range(2, size + 1))
    assert torch.equal(x[counts], y[counts] - 1)
    assert x.dtype == y.dtype == torch.int64
    assert x.min() >= 0


@pytest.mark.parametrize(("share", "windows"), [(0.01, 10), (0.3, 300), (1e-9, 1)])
def test_a_share_is_as_many_different_windows_from_all_over_the_text(share, windows):
    _, y = joined(WindowLoader(text(5001), share, rows=7, bptt=5))
    first = y[y[:, 0] != IGNORED, 0]
    assert len(first) == windows
    assert torch.equal(first, first.unique())
    assert torch.all((first - 2) % 5 == 0)
    if windows > 1:
        assert first[0] < 1500
        assert first[-1] > 3500


def test_every_pass_and_every_loader_has_the_same_windows():
    loader = WindowLoader(text(1000), 0.1, rows=4, bptt=5)
    first = joined(loader)
    for again in (loader, WindowLoader(text(1000), 0.1, rows=4, bptt=5), WindowLoader(text(1000), 0.1, 9, 5)):
        for part, other in zip(first, joined(again), strict=True):
            assert torch.equal(part[:20], other[:20])


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_every_batch_and_have_equally_many(world_size):
    whole = list(WindowLoader(text(500), 0.7, rows=5, bptt=6))
    parts = [WindowLoader(text(500), 0.7, 5, 6, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {len(part) for part in parts} == {len(whole)}
    for batch, *shares in zip(whole, *parts, strict=True):
        for tensor, *own in zip(batch, *shares, strict=True):
            assert all(len(part) for part in own)
            assert torch.equal(torch.cat(own), tensor)


def test_too_little_is_refused():
    with pytest.raises(DataError, match="A text of one token has nothing to predict"):
        WindowLoader(text(1), 1.0, rows=1, bptt=1)
    with pytest.raises(UsageError, match="2 columns do not go round 3 ranks"):
        WindowLoader(text(9), 1.0, rows=2, bptt=1, rank=0, world_size=3)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(UsageError, match=f"train_sample={share}: give the share"):
        check_share(share)
