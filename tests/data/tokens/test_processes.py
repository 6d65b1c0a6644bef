"""Tasks in processes of their own."""

import multiprocessing
import os
import signal

import pytest

from sparse_rnn.data.tokens.processes import in_processes, in_turn


def touch(path):
    path.write_text(str(os.getpid()))


def fail(path):
    if path.name == "1":
        raise ValueError("no such luck")
    signal.pause()


def be_killed(path):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def paths(tmp_path):
    return [tmp_path / str(number) for number in range(5)]


def test_every_task_is_done_once_and_in_a_process_of_its_own(paths):
    assert sorted(in_processes(touch, paths, jobs=2)) == paths
    processes = {path.read_text() for path in paths}
    assert len(processes) == 5
    assert str(os.getpid()) not in processes


def test_in_turn_is_this_process(paths):
    assert list(in_turn(touch, paths)) == paths
    assert {path.read_text() for path in paths} == {str(os.getpid())}


def test_an_error_comes_through_and_ends_the_others(paths):
    with pytest.raises(ValueError, match="no such luck"):
        list(in_processes(fail, paths, jobs=3))
    assert not multiprocessing.active_children()


def test_a_killed_process_is_noticed(paths):
    with pytest.raises(ChildProcessError, match="killed"):
        list(in_processes(be_killed, paths, jobs=2))
