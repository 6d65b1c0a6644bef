"""What names a store, and which corpora cannot be."""

import os
from pathlib import Path

import pytest

from sparse_rnn.data import DataError, Vocabulary
from sparse_rnn.data.tokens import Bytes, Characters, Corpus, Words
from sparse_rnn.errors import UsageError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("some text\n")
    return path


def test_the_digest_is_that_of_the_files_and_settings_and_no_other(path, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("some text\n")
    corpora = [
        Corpus({"train": [path]}),
        Corpus({"train": [other]}),
        Corpus({"train": [path, other]}),
        Corpus({"train": [other, path]}),
        Corpus({"train": [path], "val": [other]}),
        Corpus({"train": [path]}, Characters()),
        Corpus({"train": [path]}, Words("<S>")),
        Corpus({"train": [path]}, vocab_size=5),
        Corpus({"train": [path]}, vocabulary=Vocabulary(["a", "b"])),
        Corpus({"train": [path]}, vocabulary=Vocabulary(["b", "a"])),
        Corpus({"train": [path]}, vocabulary=Vocabulary(["a", "b"], 1)),
    ]
    digests = [corpus.digest() for corpus in corpora]
    assert len(set(digests)) == len(corpora)
    assert [corpus.digest() for corpus in corpora] == digests


@pytest.mark.parametrize("change", [lambda path: path.write_text("more text\n\n"), lambda path: os.utime(path, (1, 1))])
def test_the_digest_changes_with_size_and_time(change, path):
    before = Corpus({"train": [path]}).digest()
    change(path)
    assert Corpus({"train": [path]}).digest() != before


def test_the_digest_is_the_same_from_another_folder(path, monkeypatch):
    expected = Corpus({"train": [path]}).digest()
    monkeypatch.chdir(path.parent)
    assert Corpus({"train": [Path("text.txt")]}).digest() == expected


def test_stores_that_have_the_byte_order_mark_as_text_are_not_found(tmp_path):
    """Their digest had the size of the whole file; that of a file without the mark is what it was."""
    digests = {}
    for size in (9, 12):  # of the text, and of the text and the mark, as plain text
        path = tmp_path / "text.txt"
        path.write_bytes(b"x" * size)
        os.utime(path, (1, 1))
        digests[size] = Corpus({"train": [path]}).digest()
    path.write_bytes(b"\xef\xbb\xbf" + b"x" * 9)
    os.utime(path, (1, 1))
    assert Corpus({"train": [path]}).digest() == digests[9] != digests[12]


def test_a_digest_is_what_it_was_so_that_stores_are_found_again(path, monkeypatch):
    os.utime(path, (1, 1))
    monkeypatch.chdir("/")
    monkeypatch.setattr(Path, "resolve", lambda self: Path("/text.txt"))
    assert Corpus({"train": [path]}).digest() == "27e7e23e5f87cdac"


def test_rare_words_are_left_out_unless_the_text_has_unk_itself(path):
    counts = {"a": 3, "b": 2, "c": 1}
    kept = {number: Corpus({"train": [path]}, min_count=number).words_of(counts).get_itos() for number in (None, 1, 3)}
    assert kept == {None: ["a", "b", "<unk>"], 1: ["a", "b", "c", "<unk>"], 3: ["<unk>", "a"]}
    with_unk = counts | {"<unk>": 5}
    assert Corpus({"train": [path]}, min_count=None).words_of(with_unk).get_itos() == ["<unk>", "a", "b", "c"]
    digests = {Corpus({"train": [path]}, min_count=number).digest() for number in (None, 1, 2)}
    assert len(digests) == 3


def test_contradictions_are_refused(path):
    with pytest.raises(UsageError, match="min_count=0: give how often a word must occur"):
        Corpus({"train": [path]}, min_count=0)
    with pytest.raises(UsageError, match="not both"):
        Corpus({"train": [path]}, vocab_size=3, vocabulary=Vocabulary(["a"]))
    with pytest.raises(DataError, match="The split 'valid' has no file"):
        Corpus({"train": [path], "valid": []})
    with pytest.raises(UsageError, match="vocab_size=0: give the number of words to keep"):
        Corpus({"train": [path]}, vocab_size=0)


def test_files_that_cannot_be_are_named(path):
    with pytest.raises(DataError, match=r"text\.txt/none cannot be read \(Not a directory\): put the text there"):
        Corpus({"train": [path / "none"]}).digest()
    with pytest.raises(DataError, match="is no file: give the path of a text file"):
        Corpus({"train": [path.parent]}).digest()
    path.write_text("some text\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"text\.txt is UTF-16, not UTF-8: save it as UTF-8"):
        Corpus({"train": [path]}).digest()
    assert Corpus({"train": [path]}, Bytes()).digest()  # whose files may hold anything
    path.write_text("")
    with pytest.raises(DataError, match=r"text\.txt is empty: put the text there"):
        Corpus({"train": [path]}).digest()
