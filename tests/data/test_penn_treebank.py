"""The Penn Treebank on files made here, and on the real ones where they are."""

import hashlib
import os
from pathlib import Path

import pytest

from sparse_rnn.data import DataError, PennTreebank, penn_treebank
from sparse_rnn.data.download import data_folder

TEXTS = {"train": " a rose is a <unk> \n a N \n", "val": " is a rose \n", "test": " a <unk> \n"}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    for split, text in TEXTS.items():
        file = penn_treebank.FILES[split]
        (tmp_path / file).write_text(text)
        monkeypatch.setitem(penn_treebank.CHECKSUMS, file, hashlib.sha256(text.encode()).hexdigest())
    monkeypatch.setattr(penn_treebank, "MIRRORS", ("http://127.0.0.1:1/",))
    return tmp_path


def test_words_and_the_end_of_each_line(folder):
    data = PennTreebank(root=folder)
    data.prepare_data()
    words = {split: " ".join(data.vocabulary.lookup_tokens(data.store[split])) for split in TEXTS}
    assert words["train"] == "a rose is a <unk> <eos> a N <eos>"
    assert words["val"] == "is a rose <eos>"
    assert data.vocab_size == 6, "words that occur once stay: the text has <unk> itself"


def test_other_contents_are_refused_and_missing_ones_named(folder):
    file = folder / "ptb.valid.txt"
    file.write_text("another text")
    with pytest.raises(
        DataError, match=r"ptb\.valid\.txt has the SHA-256 checksum .* place the original ptb\.train\.txt"
    ):
        PennTreebank(root=folder).prepare_data()
    file.unlink()
    with pytest.raises(DataError, match=r"ptb\.valid\.txt is missing and could not be downloaded"):
        PennTreebank(root=folder).prepare_data()
    with pytest.raises(DataError, match=r"ptb\.valid\.txt is missing: place"):
        PennTreebank(root=folder).setup()


def test_the_published_counts():
    folder = data_folder("ptb", None)
    if not all(os.path.isfile(folder / file) for file in penn_treebank.FILES.values()):
        pytest.skip(f"the Penn Treebank is not in {folder}")
    data = PennTreebank()
    data.prepare_data()
    assert [len(data.store[split]) for split in TEXTS] == [929_589, 73_760, 82_430]
    assert data.vocab_size == 10_000
