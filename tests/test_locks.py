import os
import signal
import subprocess
import sys
import time

import pytest

from sparse_rnn.errors import UsageError
from sparse_rnn.locks import alone

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
def test_others_wait(tmp_path):
    log = tmp_path / "log"
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            with alone(tmp_path / "lock"), log.open("a") as file:
                file.write("in ")
                file.flush()
                time.sleep(0.05)
                file.write("out ")
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert log.read_text() == "in out " * 3
