"""Byte order marks, of each encoding that has one."""

import codecs

import pytest

from sparse_rnn.data import DataError
from sparse_rnn.data.tokens.encoding import mark_bytes


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (codecs.BOM_UTF8 + b"text", 3),
        (codecs.BOM_UTF8, 3),
        (b"text", 0),
        (b"a" + codecs.BOM_UTF8, 0),
        (b"\xef\xbb", 0),
        (b"", 0),
    ],
)
def test_the_mark_of_utf_8_is_three_bytes_at_the_beginning(raw, size, tmp_path):
    (tmp_path / "text").write_bytes(raw)
    assert mark_bytes(tmp_path / "text") == size


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-32"])
def test_text_of_another_encoding_is_refused_by_its_mark(encoding, order, tmp_path):
    (tmp_path / "text").write_bytes("\ufefftext".encode(f"{encoding}-{order}"))
    with pytest.raises(DataError, match=rf"text is {encoding}, not UTF-8: save it as UTF-8") as caught:
        mark_bytes(tmp_path / "text")
    assert "\n" not in str(caught.value)
