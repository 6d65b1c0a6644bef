"""Downloads from mirrors on this machine."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from sparse_rnn.data import DataError, SequentialMNIST, mnist
from sparse_rnn.data.download import download

CONTENTS = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENTS).hexdigest()
FILE = "numbers.bin"


class Mirror(BaseHTTPRequestHandler):
    """The first part of the path says how the request is answered."""

    def do_GET(self):
        kind = self.path.split("/")[1]
        if kind == "absent":
            self.send_error(404)
            return
        body = {"good": CONTENTS, "wrong": CONTENTS[::-1], "short": CONTENTS[:-1000]}[kind]
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENTS)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch(server: str, folder, *kinds: str) -> None:
    download(FILE, SHA256, folder, tuple(f"{server}/{kind}/" for kind in kinds), "do this")


@pytest.mark.parametrize(
    "kinds", [["good"], ["absent", "good"], ["wrong", "good"], ["short", "good"], ["good", "wrong"]], ids=" ".join
)
def test_the_first_mirror_that_delivers_is_enough(kinds, server, tmp_path, capfd):
    fetch(server, tmp_path / "new", *kinds)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [FILE]
    assert (tmp_path / "new" / FILE).read_bytes() == CONTENTS
    assert "100%" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("kind", "reason"), [("absent", "HTTP status 404"), ("wrong", "wrong checksum"), ("short", "ChunkedEncodingError")]
)
def test_a_failure_is_explained_and_leaves_nothing(kind, reason, server, tmp_path):
    with pytest.raises(DataError) as caught:
        fetch(server, tmp_path, kind)
    host = server.removeprefix("http://")
    expected = f"{tmp_path / FILE} is missing and could not be downloaded ({host}: {reason}): do this."
    assert str(caught.value) == expected
    assert list(tmp_path.iterdir()) == []


def test_every_mirror_that_failed_is_named(server, tmp_path):
    with pytest.raises(DataError, match=r"HTTP status 404, 127.0.0.1:\d+: wrong checksum\)"):
        fetch(server, tmp_path, "absent", "wrong")


def test_an_unreachable_mirror_is_passed_over(server, tmp_path):
    nowhere = "http://127.0.0.1:1/"
    with pytest.raises(DataError, match=r"127.0.0.1:1: ConnectionError"):
        download(FILE, SHA256, tmp_path, (nowhere,), "do this")
    download(FILE, SHA256, tmp_path, (nowhere, f"{server}/good/"), "do this")
    assert (tmp_path / FILE).read_bytes() == CONTENTS


def test_an_interrupt_leaves_nothing(server, tmp_path, monkeypatch):
    def interrupted(self, chunk_size):
        yield CONTENTS[:1000]
        raise KeyboardInterrupt

    monkeypatch.setattr(requests.Response, "iter_content", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(server, tmp_path, "good")
    assert list(tmp_path.iterdir()) == []


def test_mnist_downloads_only_what_is_missing(server, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (f"{server}/absent/", f"{server}/good/"))
    monkeypatch.setattr(mnist, "SHA256", dict.fromkeys(mnist.SHA256, SHA256))
    present = tmp_path / "train-labels-idx1-ubyte.gz"
    present.write_bytes(b"as the user placed it")
    SequentialMNIST(root=tmp_path).prepare_data()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(mnist.SHA256)
    assert present.read_bytes() == b"as the user placed it"
    assert (tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes() == CONTENTS


def test_mnist_that_cannot_be_had_says_what_to_do(server, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (f"{server}/absent/",))
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte.gz is missing and .* or try gru_digits.yaml"
    ) as caught:
        SequentialMNIST(root=tmp_path).prepare_data()
    assert f"in {tmp_path}," in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_published_mirrors_are_several():
    assert len({mirror.split("/")[2] for mirror in mnist.MIRRORS}) >= 2
    assert mnist.MIRRORS[-1] == "http://yann.lecun.com/exdb/mnist/"
