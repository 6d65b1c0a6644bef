"""WikiText on files made here; tests/data/test_wikitext2.py and test_wikitext103.py have the published ones."""

import hashlib
from pathlib import Path

import pytest

from sparse_rnn.data import DataError, WikiText2, WikiText103, wikitext
from sparse_rnn.data.wikitext2 import WIKITEXT_2
from sparse_rnn.data.wikitext103 import WIKITEXT_103

TEXTS = {
    wikitext.TRAIN: " \n = A heading = \n \n The <unk> of the <unk> \n",
    wikitext.VAL: " = Another = \n",
    wikitext.TEST: "The heading \n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Three texts, taken for the published ones."""
    for file, content in TEXTS.items():
        (tmp_path / file).write_text(content)
        digest = hashlib.sha1(content.encode()).hexdigest()
        for archive in (WIKITEXT_2, WIKITEXT_103):
            monkeypatch.setitem(archive.checksums, file, f"sha1:{digest}")
    monkeypatch.setattr(wikitext, "MIRRORS", ("http://127.0.0.1:1/",))
    return tmp_path


def words(data, split: str) -> str:
    return " ".join(data.vocabulary.lookup_tokens(data.store[split]))


def test_every_line_ends_in_eos_blank_ones_too(folder):
    data = WikiText2(root=folder)
    data.prepare_data()
    assert words(data, "train") == "<eos> = A heading = <eos> <eos> The <unk> of the <unk> <eos>"
    assert words(data, "val") == "= <unk> = <eos>"
    assert words(data, "test") == "The heading <eos>"


def test_folder_is_named_after_the_data_set(monkeypatch, tmp_path, cache):
    monkeypatch.setenv("SPARSE_RNN_DATA", str(tmp_path))
    assert WikiText2().folder == tmp_path / "wikitext-2"
    assert WikiText103().folder == tmp_path / "wikitext-103"
    monkeypatch.delenv("SPARSE_RNN_DATA")
    assert WikiText2().folder == cache / "sparse_rnn" / "wikitext-2"


@pytest.mark.parametrize("file", TEXTS)
def test_other_contents_than_the_published_are_refused(file, folder):
    (folder / file).write_text(TEXTS[file][:-4])
    found = hashlib.sha1(TEXTS[file][:-4].encode()).hexdigest()
    with pytest.raises(DataError, match=f"{file} has the SHA-1 checksum {found} where .* was expected: place the orig"):
        WikiText2(root=folder).prepare_data()


@pytest.mark.parametrize("data_set", [WikiText2, WikiText103])
@pytest.mark.parametrize("file", TEXTS)
def test_a_missing_file_is_one_sentence_with_advice(file, data_set, folder):
    (folder / file).unlink()
    data = data_set(root=folder)
    for step in (data.prepare_data, data.setup):
        with pytest.raises(DataError, match=r"is missing.*: place the original wiki.train.tokens, .* no download\.$"):
            step()


def test_a_part_is_taken_only_by_name(folder):
    (folder / wikitext.TRAIN).rename(folder / "part.tokens")
    with pytest.raises(DataError, match=r"is missing.*name another training text as train_file"):
        WikiText103(root=folder).prepare_data()
    data = WikiText103(root=folder, train_file="part.tokens")
    data.prepare_data()
    assert words(data, "train").startswith("<eos> = A heading")


def test_a_part_that_is_missing_is_not_downloaded(folder):
    with pytest.raises(DataError, match=r"none.tokens is missing: place"):
        WikiText103(root=folder, train_file="none.tokens").prepare_data()


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "part.tokens is empty"), (b"a \xff b\n", "part.tokens is not UTF-8: byte 2 is 0xff")]
)
def test_text_that_is_none_is_refused(content, problem, folder, cache):
    (folder / "part.tokens").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        WikiText103(root=folder, train_file="part.tokens").prepare_data()
    assert not [*cache.rglob("store.json")]


def test_mirrors_are_several():
    assert len({mirror.split("/")[2] for mirror in wikitext.MIRRORS}) == 3
