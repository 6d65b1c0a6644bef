"""The published file, where it is; tests/data/test_hundred_megabytes.py has the rest."""

import os

import pytest

from sparse_rnn.data import Text8


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSE_RNN_DATA", str(tmp_path))
    assert Text8().file == tmp_path / "text8" / "text8"
    assert sum(Text8().published.splits.values()) == 100_000_000


@pytest.mark.slow
def test_the_published_counts():
    data = Text8()
    if not os.path.isfile(data.file):
        pytest.skip(f"{data.file} is not there")
    data.prepare_data()
    assert [len(data.store[split]) for split in data.store.splits] == [90_000_000, 5_000_000, 5_000_000]
    assert data.vocab_size <= 206
