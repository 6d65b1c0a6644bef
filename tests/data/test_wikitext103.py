"""The published files, where they are; tests/data/test_wikitext.py has the rest."""

import os
import shutil
from pathlib import Path

import pytest

from sparse_rnn.data import DataError, WikiText103, wikitext

needs_wikitext = pytest.mark.skipif("SPARSE_RNN_DATA" not in os.environ, reason="SPARSE_RNN_DATA is not set")


@needs_wikitext
def test_real_wikitext_103_in_part_by_name():
    data = WikiText103(train_file="wiki.train.truncated.tokens")
    data.prepare_data()
    assert (len(data.store["train"]), data.vocab_size) == (501_320, 32_487)
    assert [len(data.store[split]) for split in ("val", "test")] == [217_646, 245_569]


@needs_wikitext
def test_real_part_of_wikitext_103_is_not_taken_for_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(wikitext, "MIRRORS", ("http://127.0.0.1:1/",))
    source = Path(os.environ["SPARSE_RNN_DATA"]) / "wikitext-103"
    shutil.copy(source / "wiki.train.truncated.tokens", tmp_path / wikitext.TRAIN)
    for file in (wikitext.VAL, wikitext.TEST):
        (tmp_path / file).symlink_to(source / file)
    with pytest.raises(DataError, match=r"wiki\.train\.tokens has the SHA-1 checksum a9befc5ac9fc"):
        WikiText103(root=tmp_path).prepare_data()
