import os
import signal
import subprocess
import sys
import time

import pytest

from sparse_rnn.compare.orphans import BOUND

FIT = "import time\nfrom sparse_rnn.compare.orphans import end_with_parent\n"
FIT += "end_with_parent()\nprint('fits', flush=True)\ntime.sleep(600)"
PARENT = "import os, subprocess, sys, time\n"
PARENT += "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdin=subprocess.PIPE)\n"
PARENT += "print(child.pid, flush=True)\ntime.sleep(600)"


def gone(pid):
    for _ in range(200):
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":  # ended, and nobody has asked yet
                    return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_a_fit_ends_when_its_parent_is_killed():
    environment = os.environ | {BOUND: "1"}
    with subprocess.Popen([sys.executable, "-c", PARENT, FIT], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        lines = sorted(parent.stdout.readline().decode().strip() for _ in range(2))
        assert lines[1] == "fits"
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert gone(int(lines[0]))


def test_ctrl_c_is_left_to_the_parent():
    with subprocess.Popen(
        [sys.executable, "-c", FIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {BOUND: "1"}
    ) as fit:
        assert fit.stdout is not None
        fit.stdout.readline()
        fit.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            fit.wait(1)
        fit.terminate()
        assert fit.wait() == -signal.SIGTERM


def test_a_process_that_nobody_has_bound_goes_on_without_input():
    command = FIT.replace("time.sleep(600)", "time.sleep(0.2)\nprint('ended')")
    environment = {name: value for name, value in os.environ.items() if name != BOUND}
    command = [sys.executable, "-c", command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, capture_output=True)
    assert done.stdout.split() == [b"fits", b"ended"]
