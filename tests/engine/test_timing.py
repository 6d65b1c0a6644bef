"""Layers timed side by side."""

import time

import pytest
import torch
from torch import nn

from sparse_rnn.engine import compact
from sparse_rnn.engine.library import library
from sparse_rnn.engine.timing import side_by_side, time_layers


def test_functions_take_turns_and_the_first_calls_do_not_count():
    calls = []

    def slow():
        calls.append("slow")
        time.sleep(0.1 if len(calls) == 1 else 0)

    medians = side_by_side(slow, lambda: calls.append("fast"), seconds=0)
    assert calls == ["slow", "fast"] * 6
    assert medians[0] < 50


@pytest.mark.skipif(library() is None, reason="The kernels are not built.")
@pytest.mark.parametrize("batch_first", [False, True])
def test_each_sparse_layer_is_timed_at_each_batch_size(batch_first):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"one": nn.GRU(6, 40, batch_first=batch_first), "two": nn.LSTM(5, 30), "three": nn.Linear(2, 2)}
    )
    for name in ("one", "two"):
        for parameter in model[name].parameters():
            parameter.data.mul_(torch.rand_like(parameter) < 0.1)
    small = compact(model)
    rows = list(time_layers(model, small, [1, 3], steps=4, seconds=0))
    assert [(row.name, row.batch) for row in rows] == [("one", 1), ("one", 3), ("two", 1), ("two", 3)]
    for row in rows:
        assert row.error < 1e-5
        assert row.sparse_bytes == small[row.name].nbytes < row.dense_bytes
        assert row.bandwidth == pytest.approx(row.read_bytes / (row.sparse / 1000) / 1e9)
