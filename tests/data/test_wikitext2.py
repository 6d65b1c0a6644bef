"""The published files, where they are; tests/data/test_wikitext.py has the rest."""

import os

import pytest

from sparse_rnn.data import WikiText2

needs_wikitext = pytest.mark.skipif("SPARSE_RNN_DATA" not in os.environ, reason="SPARSE_RNN_DATA is not set")


@needs_wikitext
def test_real_wikitext_2_has_the_published_counts():
    data = WikiText2()
    data.prepare_data()
    counts = {split: len(data.store[split]) for split in ("train", "val", "test")}
    assert counts == {"train": 2_088_628, "val": 217_646, "test": 245_569}
    assert data.vocab_size == 33_278
    assert data.store.counts[data.vocabulary["<unk>"]] == 54_625
    unknown = data.vocabulary["<unk>"]
    assert [(data.store[split] == unknown).sum() for split in ("val", "test")] == [11_718, 15_218]
