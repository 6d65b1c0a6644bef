import os
import signal
import subprocess
import sys
import time

import pytest

from sparse_rnn.errors import UsageError
from sparse_rnn.locks import alone, alone_for_now

HOLD = "import sys, time\nfrom pathlib import Path\nfrom sparse_rnn.locks import alone\n"
HOLD += "with alone(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock, ended at last."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_another_process_is_refused_until_the_holder_is_killed(tmp_path, holder):
    with pytest.raises(UsageError, match=r"^taken$"), alone(tmp_path / "lock", "taken"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with alone(tmp_path / "lock", "taken"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize(("lock", "times", "left"), [(alone, 1, ["lock", "log"]), (alone_for_now, 20, ["log"])])
def test_others_wait(tmp_path, lock, times, left):
    log = tmp_path / "log"
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            for _ in range(times):
                with lock(tmp_path / "lock"), log.open("a") as file:
                    file.write("in ")
                    file.flush()
                    time.sleep(0.002)
                    file.write("out ")
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert log.read_text() == "in out " * 3 * times
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_what_fails_leaves_no_lock_either(tmp_path):
    with pytest.raises(KeyError), alone_for_now(tmp_path / "lock"):
        raise KeyError
    with alone_for_now(tmp_path / "lock"):
        (tmp_path / "lock").unlink()  # by whoever cleans up
        (tmp_path / "lock").touch()  # another holder's
    assert (tmp_path / "lock").exists()
