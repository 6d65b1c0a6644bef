"""Downloads from mirrors on this machine."""

import hashlib
import io
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import requests

from sparse_rnn.data import DataError
from sparse_rnn.data.download import cache_folder, check, data_folder, download, download_archive, user_path, write_once

CONTENTS = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENTS).hexdigest()
FILE = "numbers.bin"
MEMBERS = {"one.txt": b"1", "deeper/two.txt": b"2"}


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in MEMBERS.items():
            archive.writestr(f"data-set/{name}", content)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in MEMBERS.items():
            member = tarfile.TarInfo(f"data-set/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVES = {"set.zip": zipped(), "set.tar.gz": tarred()}


LOCK = ".download.lock"  # empty, and stays


def entries(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK)


class Mirror(BaseHTTPRequestHandler):
    """The first part of the path says how the request is answered."""

    counted: ClassVar[list[str]] = []

    def do_GET(self):
        kind = self.path.split("/")[1]
        if kind == "counted":
            self.counted.append(self.path)
        if kind == "absent":
            self.send_error(404)
            return
        if kind == "browsers" and not self.headers["User-Agent"].startswith("Mozilla/5.0"):
            self.send_error(403)
            return
        contents = ARCHIVES.get(self.path.split("/")[-1], CONTENTS)
        body = {"wrong": contents[::-1], "short": contents[:-1000]}.get(kind, contents)
        self.send_response(200)
        self.send_header("Content-Length", str(len(contents)))
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
    assert entries(tmp_path / "new") == [FILE]
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
    assert entries(tmp_path) == []


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
    assert entries(tmp_path) == []


def test_servers_for_browsers_deliver(server, tmp_path):
    fetch(server, tmp_path, "browsers")
    assert (tmp_path / FILE).read_bytes() == CONTENTS


def fetch_archive(server: str, file: str, folder, *kinds: str) -> None:
    digest = hashlib.sha256(ARCHIVES[file]).hexdigest()
    download_archive(file, digest, folder, tuple(f"{server}/{kind}/" for kind in kinds), "do this")


def contents(folder) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("file", ARCHIVES)
def test_of_an_archive_its_files_are_left(file, server, tmp_path):
    fetch_archive(server, file, tmp_path / "new", "wrong", "good")
    assert contents(tmp_path / "new") == MEMBERS
    assert entries(tmp_path / "new") == ["deeper", "one.txt"]


def test_files_that_are_there_stay(server, tmp_path):
    (tmp_path / "one.txt").write_bytes(b"as the user placed it")
    fetch_archive(server, "set.zip", tmp_path, "good")
    assert contents(tmp_path) == MEMBERS | {"one.txt": b"as the user placed it"}


def test_an_archive_that_cannot_be_had_leaves_nothing(server, tmp_path):
    with pytest.raises(DataError, match=r"set.zip is missing and could not be downloaded .*wrong checksum\): do this"):
        fetch_archive(server, "set.zip", tmp_path, "wrong")
    assert entries(tmp_path) == []


def test_an_interrupt_while_unpacking_leaves_the_archive_only(server, tmp_path, monkeypatch):
    def interrupted(archive, folder):
        (tmp_path / folder / "half").write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.unpack_archive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_archive(server, "set.zip", tmp_path, "good")
    assert contents(tmp_path) == {"set.zip": ARCHIVES["set.zip"]}
    monkeypatch.undo()
    fetch_archive(server, "set.zip", tmp_path, "absent")
    assert contents(tmp_path) == MEMBERS


DOWNLOAD = """if True:
    import sys
    from pathlib import Path
    from sparse_rnn.data.download import download_archive
    file, digest, folder, mirror = sys.argv[1:]
    there = lambda: (Path(folder) / "one.txt").exists() and (Path(folder) / "deeper/two.txt").exists()
    download_archive(file, digest, Path(folder), (mirror,), "do this", there)
"""


@pytest.mark.slow
def test_processes_that_download_at_once_wait_for_one(server, tmp_path):
    file = "set.zip"
    digest = hashlib.sha256(ARCHIVES[file]).hexdigest()
    command = [sys.executable, "-c", DOWNLOAD, file, digest, str(tmp_path), f"{server}/counted/"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    assert [status for _, status in ends] == [0, 0, 0, 0], ends
    assert len(Mirror.counted) == 1
    assert contents(tmp_path) == MEMBERS


def test_what_a_killed_process_left_does_not_stop_the_next(server, tmp_path):
    (tmp_path / ".unpacking-killed").mkdir()
    (tmp_path / ".unpacking-killed" / "half").write_bytes(b"")
    (tmp_path / "set.zip").write_bytes(ARCHIVES["set.zip"])
    fetch_archive(server, "set.zip", tmp_path, "absent")
    assert contents(tmp_path) == MEMBERS


@pytest.mark.parametrize(("prefix", "algorithm"), [("", "sha256"), ("sha1:", "sha1")])
def test_checksums_are_of_either_kind(prefix, algorithm, tmp_path):
    (tmp_path / FILE).write_bytes(CONTENTS)
    digest = hashlib.new(algorithm, CONTENTS).hexdigest()
    check(tmp_path / FILE, prefix + digest, "do this")
    with pytest.raises(DataError, match=f"has the SHA-(1|256) checksum {digest} where 0{digest} was expected: do this"):
        check(tmp_path / FILE, f"{prefix}0{digest}", "do this")


def test_a_file_that_cannot_be_read_has_no_checksum(tmp_path):
    with pytest.raises(DataError, match=r"none cannot be read \(No such file or directory\): do this\.$"):
        check(tmp_path / "none", SHA256, "do this")


def test_an_archive_that_cannot_be_unpacked_is_one_sentence(server, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.unpack_archive", full)
    with pytest.raises(DataError, match=r"set.zip could not be unpacked \(.*No space left on device\): do this\.$"):
        fetch_archive(server, "set.zip", tmp_path, "good")
    assert contents(tmp_path) == {"set.zip": ARCHIVES["set.zip"]}


def test_a_folder_that_cannot_be_made_is_one_sentence(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"could not be downloaded \((FileExists|NotADirectory)Error: .* is no folder"):
        fetch(server, tmp_path / "file", "good")


def test_a_file_that_is_there_is_not_downloaded_again(tmp_path):
    (tmp_path / FILE).write_bytes(CONTENTS)
    download(FILE, SHA256, tmp_path, ("http://127.0.0.1:1/",), "do this")


def test_folders_are_the_given_one_the_shared_one_or_one_of_the_cache(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPARSE_RNN_DATA", "/shared")
    assert data_folder("mnist", "~/own") == tmp_path / "own"
    assert data_folder("mnist", None).as_posix() == "/shared/mnist"
    monkeypatch.delenv("SPARSE_RNN_DATA")
    assert data_folder("mnist", None) == cache_folder("mnist") == cache / "sparse_rnn" / "mnist"


def test_the_home_of_nobody_is_refused():
    with pytest.raises(DataError, match="~nobody-of-this-name/data begins at a home folder that cannot be found"):
        user_path("~nobody-of-this-name/data")


def test_a_content_that_fails_leaves_nothing(tmp_path):
    def content():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_once(tmp_path / "part" / "notes.txt", content)
    assert list((tmp_path / "part").iterdir()) == []


def test_a_file_that_several_want_at_once_is_written_once(tmp_path):
    path, made = tmp_path / "notes.txt", []

    def content():
        made.append(1)
        time.sleep(0.05)
        return b"some notes"

    threads = [threading.Thread(target=write_once, args=(path, content)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), path.read_bytes()) == (1, b"some notes")
    assert list(tmp_path.iterdir()) == [path]
