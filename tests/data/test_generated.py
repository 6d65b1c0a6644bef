"""Texts that are written to the cache."""

import pytest

from sparse_rnn.data import DataError
from sparse_rnn.data.generated import cached_files


def test_texts_are_written_once_and_others_beside_them(cache):
    files = cached_files("letters", {"train": "ä", "val": "b"})
    assert {split: [path.read_text(encoding="utf-8") for path in paths] for split, paths in files.items()} == {
        "train": ["ä"],
        "val": ["b"],
    }
    before = files["train"][0].stat().st_mtime_ns
    assert cached_files("letters", {"train": "ä", "val": "b"}) == files
    assert files["train"][0].stat().st_mtime_ns == before
    assert cached_files("letters", {"train": "c", "val": "b"})["train"] != files["train"]
    assert len(list(cache.rglob("*.txt"))) == 4


def test_a_cache_that_cannot_be_written_is_named(cache):
    (cache / "sparse_rnn").write_text("a file")
    with pytest.raises(DataError, match=r"train.txt could not be written \(Not a directory\): .* XDG_CACHE_HOME"):
        cached_files("letters", {"train": "a"})
