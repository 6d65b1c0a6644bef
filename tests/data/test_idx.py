"""IDX files against arrays written by the published format."""

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparse_rnn.data import DataError
from sparse_rnn.data.idx import read_idx


def idx(array: np.ndarray) -> bytes:
    """The format as published: two zero bytes, type 8, number of dimensions, the sizes, the data."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "numbers.gz"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_what_is_written_is_read(path, shape, random):
    array = np.array([random.randrange(256) for _ in range(int(np.prod(shape)))], np.uint8).reshape(shape)
    path.write_bytes(gzip.compress(idx(array)))
    found = read_idx(path, len(shape), "do this")
    assert found.tolist() == array.tolist()
    found += 1  # it is a tensor of its own that may be written to


def error_of(path, contents: bytes | None = None, ndim: int = 1) -> str:
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(DataError, match=r": do this\.$") as caught:
        read_idx(path, ndim, "do this")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing(path):
    assert error_of(path) == f"{path} is missing: do this."


def test_truncated_gzip(path):
    contents = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, 10_000)))[:5000]
    assert f"{path} is a truncated gzip file of 5000 bytes: " in error_of(path, contents)


@pytest.mark.parametrize("contents", [b"<html>not found</html>", gzip.compress(b"x" * 1000, mtime=0)[:-6] + b"\0" * 6])
def test_no_gzip(contents, path):
    assert f"{path} is no intact gzip file (" in error_of(path, contents)


def test_unreadable(path):
    path.mkdir()
    assert f"{path} cannot be read (Is a directory): " in error_of(path)


@pytest.mark.parametrize(
    ("contents", "found"),
    [(idx(np.zeros(3)), "0x00000801"), (b"\0\0\x0d\x03" + bytes(12), "0x00000d03"), (b"", "0x00000000")],
)
def test_wrong_magic_number(contents, found, path):
    message = error_of(path, gzip.compress(contents, mtime=0), ndim=3)
    assert f"{path} has the magic number {found} where 0x00000803 was expected: " in message


@pytest.mark.parametrize(("change", "found"), [(slice(-1), 9), (slice(6), 0)])
def test_data_that_do_not_fit_the_header(change, found, path):
    message = error_of(path, gzip.compress(idx(np.zeros(10))[change]))
    assert f"{path} has {found} bytes of data where its header says " in message
