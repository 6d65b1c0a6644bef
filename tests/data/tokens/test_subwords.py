"""Subwords against the library that makes them."""

import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_rnn.data import DataError, TextFiles
from sparse_rnn.data.tokens import Lexicon
from sparse_rnn.data.tokens.subwords import Subwords, read_subwords, train_subwords
from sparse_rnn.errors import UsageError

TEXT = "the cat sat on the mat\n\n  the cat ran,\tand the café was there\n" * 20


def library():
    return pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'sparse-rnn[text]'")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    library()
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return train_subwords([path], 300)


@given(st.text(st.sampled_from("the ca \t\n\ré,€x"), max_size=40))
def test_text_is_put_together_again_and_cuts_change_no_token(found, text):
    tokens = list(found(text))
    assert found.join(tokens) == text
    raw = text.encode()
    for match in found.boundary.finditer(raw):
        head, tail = raw[: match.end()].decode(), raw[match.end() :].decode()
        assert [*found(head), *found(tail)] == tokens


def test_tokens_are_the_librarys(found):
    tokenizer = library().Tokenizer.from_str(found.tokenizer)
    assert list(found(TEXT)) == tokenizer.encode(TEXT).tokens
    assert len(found(TEXT)) < len(TEXT) / 2
    assert len(found.symbols) == tokenizer.get_vocab_size() <= 300


def test_every_byte_has_a_word_so_that_nothing_is_unknown(found, tmp_path):
    for split, text in {"train": TEXT, "val": "Ωmega", "test": "the cat"}.items():
        (tmp_path / f"{split}.txt").write_text(text, encoding="utf-8")
    data = TextFiles(*(tmp_path / f"{split}.txt" for split in ("train", "val", "test")), subwords=300)
    assert data.store.unknown("val") == 0
    counts = data.store.counts.tolist()
    assert counts == sorted(counts, reverse=True), "the sampled softmax needs falling frequencies"
    again = Lexicon.from_state(data.lexicon.state())
    assert again.tokenization.join(again.vocabulary.lookup_tokens(data.store["val"])) == "Ωmega\n"


def test_a_file_is_read_and_two_tokenizers_are_told_apart(found, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(found.tokenizer, encoding="utf-8")
    assert read_subwords(path) == found == pickle.loads(pickle.dumps(found))
    (tmp_path / "other.txt").write_text("quite another text\n" * 9)
    assert repr(train_subwords([tmp_path / "other.txt"], 260)) != repr(found)
    with pytest.raises(DataError, match=r"none\.json cannot be read"):
        read_subwords(tmp_path / "none.json")
    path.write_text("{}")
    with pytest.raises(DataError, match="This is no tokenizer"):
        read_subwords(path)


def test_too_few_are_refused(tmp_path):
    with pytest.raises(UsageError, match="subwords=256: give their number, a whole number of at least 257"):
        train_subwords([tmp_path / "text.txt"], 256)


def test_a_missing_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"need the library tokenizers: pip install 'sparse-rnn\[text\]'"):
        Subwords("{}")


def test_a_text_that_is_no_utf_8_is_one_sentence(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("café ".encode("latin-1") * 50)
    with pytest.raises(DataError, match=r"Subwords of .*latin\.txt cannot be found .*: give UTF-8"):
        train_subwords([path], 300)
