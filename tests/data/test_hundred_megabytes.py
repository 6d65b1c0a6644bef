"""Text8 and Enwik8 on small files made here; tests/data/test_text8.py and test_enwik8.py have what is theirs."""

import hashlib
import zipfile

import pytest

from sparse_rnn.data import DataError, hundred_megabytes
from sparse_rnn.data.hundred_megabytes import HundredMegabytes, Published

CONTENT = "<x>é\r\n€uro</x> \x00".encode()  # with its cuts in the middle of characters
SIZES = {"train": 4, "val": 5, "test": len(CONTENT) - 9}


@pytest.fixture
def published(monkeypatch):
    monkeypatch.setattr(hundred_megabytes, "MIRRORS", ("http://127.0.0.1:1/",))
    return Published("tiny", "0" * 64, hashlib.sha1(CONTENT).hexdigest(), SIZES)


def data(published, root):
    return HundredMegabytes(published, 2, 3, 2, None, root, 0.0, 0.0, None)


def test_splits_are_the_bytes_of_the_file_and_nothing_else(published, tmp_path):
    (tmp_path / "tiny").write_bytes(CONTENT)
    text = data(published, tmp_path)
    text.prepare_data()
    assert {split: len(text.store[split]) for split in SIZES} == SIZES
    known = {CONTENT[index] for index in range(SIZES["train"])}
    start = 0
    for split, size in SIZES.items():
        words = text.vocabulary.lookup_tokens(text.store[split])
        expected = [chr(byte) if byte in known else "<unk>" for byte in CONTENT[start : start + size]]
        assert words == expected
        start += size


def test_other_contents_are_refused_and_a_missing_file_named(published, tmp_path):
    with pytest.raises(DataError, match=r"tiny is missing: place the original tiny, unpacked from tiny\.zip, in "):
        data(published, tmp_path).setup()
    with pytest.raises(DataError, match=r"tiny\.zip is missing and could not be downloaded"):
        data(published, tmp_path).prepare_data()
    (tmp_path / "tiny").write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match="has the SHA-1 checksum"):
        data(published, tmp_path).prepare_data()


def test_an_archive_is_unpacked(published, tmp_path):
    archive = tmp_path / "tiny.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("tiny", CONTENT)
    published = published._replace(archive_sha256=hashlib.sha256(archive.read_bytes()).hexdigest())
    data(published, tmp_path).prepare_data()
    assert (tmp_path / "tiny").read_bytes() == CONTENT
