import errno
import os
import re
from pathlib import Path

import pytest

from sparse_rnn.errors import UsageError
from sparse_rnn.writing import whole_file, written_whole


def write(path, text):
    with written_whole(path) as unfinished:
        unfinished.write_text(text)


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "deeper" / "file", "first")
    return tmp_path / "deeper" / "file"


def test_a_file_is_whole_or_as_it_was(path):
    with pytest.raises(UnicodeEncodeError), written_whole(path) as unfinished:
        unfinished.write_text("second, cut off at \ud800")
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_where_nothing_can_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "below", tmp_path):
        with pytest.raises(UsageError, match=f"{re.escape(str(path))} cannot be written"), written_whole(path) as own:
            own.write_text("")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
def test_a_pipe_a_device_or_a_folder_keeps_its_place(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "folder"):
        with pytest.raises(UsageError, match="it is a folder, a device or a pipe"), written_whole(path) as unfinished:
            unfinished.write_bytes(b"x")
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
def test_what_ends_the_writing_leaves_the_earlier_file(path, step, error, monkeypatch):
    def ended(*args):
        raise error

    monkeypatch.setattr(os, step, ended)
    kind = UsageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(kind) as caught:
        write(path, "second")
    if kind is UsageError:
        assert str(caught.value).startswith(f"{path} cannot be written (No space left on device)")
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("said", ["[enforce fail] . unexpected pos 64 vs 0: file write failed", "iostream error"])
def test_a_full_disk_is_told_as_torch_says_it(path, said):
    with pytest.raises(UsageError, match="the disk is full, or gone"), written_whole(path):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="a fault of ours"), written_whole(path):
        raise RuntimeError("a fault of ours")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_kill_at_any_call_leaves_a_whole_file(path):
    killed = 0
    for owner, name in ((Path, "open"), (os, "fsync"), (os, "replace")):
        child = os.fork()
        if child == 0:
            setattr(owner, name, lambda *args, **options: os.kill(os.getpid(), 9))
            write(path, "second")
            os._exit(0)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert path.read_text() == "first"
    assert killed == 3
    left = [other for other in path.parent.iterdir() if other != path]
    assert left
    write(path, "second")
    assert set(left) < set(path.parent.iterdir())  # they may be of a process that is at it
    for other in left:
        os.utime(other, (0, 0))
    write(path, "third")
    assert path.read_text() == "third"
    assert list(path.parent.iterdir()) == [path]


def test_of_several_at_once_each_writes_a_whole_file(path):
    with written_whole(path) as first, written_whole(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # that of the block which ends last
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_told_as_such(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UsageError, match="Permission denied"), written_whole(tmp_path / "file"):
            raise RuntimeError("file write failed")
    finally:
        tmp_path.chmod(0o700)


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o022)
    try:
        with whole_file(tmp_path / "shared") as unfinished:
            unfinished.write_bytes(b"data")
    finally:
        os.umask(before)
    assert os.name != "posix" or (tmp_path / "shared").stat().st_mode & 0o777 == 0o644
