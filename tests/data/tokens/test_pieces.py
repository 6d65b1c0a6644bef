"""Pieces of small sizes, so that cuts fall everywhere, against the whole text."""

import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparse_rnn.data import DataError
from sparse_rnn.data.tokens import Characters, Words, pieces
from sparse_rnn.data.tokens.pieces import count, divide, read_record

# With byte order marks, which are text but at the beginning.
texts = st.text(st.sampled_from("ab é\u3000\n€\U0001f600\ufeff"), min_size=1, max_size=120)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 20)
    monkeypatch.setattr(pieces, "CHUNK_BYTES", 7)
    monkeypatch.setattr(pieces, "WINDOW_BYTES", 3)


def counted(raw: bytes, tokenization, folder):
    """Writes a file and counts its pieces."""
    path = folder / "text"
    path.write_bytes(raw)
    found = divide(path, tokenization, folder, "train-0")
    for piece in found:
        count(piece, tokenization)
    return found


def tokens(piece) -> list[str]:
    words = read_record(piece).words
    return [words[index] for index in np.fromfile(piece.ids, np.int32)]


@pytest.mark.parametrize("tokenization", [Words(), Characters()])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts)
def test_pieces_together_are_the_text(tokenization, tmp_path_factory, text):
    raw = text.encode()
    found = counted(raw, tokenization, tmp_path_factory.mktemp("pieces"))
    assert [found[0].start, *(piece.end for piece in found)] == [*(piece.start for piece in found), len(raw)]
    assert all(piece.size >= 20 for piece in found[:-1])
    whole = list(tokenization((text if text.endswith("\n") else text + "\n").removeprefix("\ufeff")))
    assert [token for piece in found for token in tokens(piece)] == whole
    assert sum(piece.tokens for piece in found) == len(whole)


@pytest.mark.parametrize("tokenization", [Words(), Characters()])
def test_a_record_counts_the_words_in_order_of_their_first_occurrence(tokenization, tmp_path):
    for piece in counted(("the cat and the mat\n" * 9).encode(), tokenization, tmp_path):
        record, found = read_record(piece), tokens(piece)
        assert record.words == list(dict.fromkeys(found))
        assert record.counts == [found.count(word) for word in record.words]


def test_the_first_record_alone_has_the_checksum_of_the_file(tmp_path):
    raw = b"the cat sat " * 30
    first, *others = counted(raw, Words(), tmp_path)
    assert len(others) > 5
    assert read_record(first).sha256 == hashlib.sha256(raw).hexdigest()
    assert all(read_record(piece).sha256 is None for piece in others)


def test_names_tell_pieces_apart_and_nothing_unfinished_is_left(tmp_path):
    found = counted(b"the cat sat " * 30, Words(), tmp_path)
    left = {path.name for path in tmp_path.iterdir()} - {"text"}
    assert left == {path.name for piece in found for path in (piece.ids, piece.record)}
    assert len(left) == 2 * len(found)


@pytest.mark.parametrize("tokenization", [Words(), Characters()])
def test_a_byte_order_mark_is_dropped_at_the_beginning_only(tokenization, tmp_path):
    pieces_of_text = counted(("\ufeff" + "the cat \ufeffsat\r\n" * 9).encode(), tokenization, tmp_path)
    found = [token for piece in pieces_of_text for token in tokens(piece)]
    assert found == 9 * list(tokenization("the cat \ufeffsat\r\n"))


@pytest.mark.parametrize("tokenization", [Words(), Characters()])
@pytest.mark.parametrize(
    ("raw", "place"), [(b"some text\xe2\x82", "byte 9 is 0xe2"), (b"a " * 700 + b"\xe9 \n", "1,400")]
)
def test_bytes_that_are_not_utf8_are_located(raw, place, tokenization, tmp_path):
    with pytest.raises(DataError, match=rf"text is not UTF-8: .*{place}.*; convert it"):
        counted(raw, tokenization, tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"none cannot be read \(No such file or directory\): make it readable, or give"
    ):
        divide(tmp_path / "none", Words(), tmp_path, "train-0")
