import gzip
import hashlib
from pathlib import Path

import pytest
from mnist_files import SIZES, idx, images, labels

from sparse_rnn.data import mnist


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of the test's own; what tests prepare and download stays out of the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("pooch.os_cache", lambda project: folder / project)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Write a file into the folder and, unless told otherwise, take its checksum for the published one."""

    def write(file: str, contents: bytes, trusted: bool = True) -> Path:
        (tmp_path / file).write_bytes(contents)
        if trusted:
            monkeypatch.setitem(mnist.SHA256, file, hashlib.sha256(contents).hexdigest())
        return tmp_path / file

    return write


@pytest.fixture
def mnist_files(tmp_path, place) -> Path:
    """A folder of four small files that are taken for the published ones."""
    for name in SIZES:
        place(f"{name}-images-idx3-ubyte.gz", gzip.compress(idx(images(name)), compresslevel=1))
        place(f"{name}-labels-idx1-ubyte.gz", gzip.compress(idx(labels(name))))
    return tmp_path
