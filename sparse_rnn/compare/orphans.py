"""Fits end with the process that has started them, however that ends, and leave Ctrl-C to it."""

import os
import signal
import sys
import threading

BOUND = "SPARSE_RNN_BOUND_TO_STDIN"
"""Name of an environment variable that is set for fits whose parent holds the other end of their standard input."""


def end_with_parent() -> None:
    """End this process at once when its parent is gone, if the parent wants it so; also where it was killed.

    Ctrl-C, which a terminal sends to both, is left to the parent: here it would end a fit within a batch, where a
    polite kill by the parent waits for the batch's end.

    The standard input is a pipe that the parent never writes to and the system closes when the parent ends. Processes
    of other ranks, which this one starts, inherit both.

    Example:
        >>> from sparse_rnn.compare.orphans import end_with_parent
        >>> end_with_parent()  # nothing, in a process that nobody has bound
    """
    if os.environ.get(BOUND):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_await_end, args=(sys.stdin.fileno(),), daemon=True).start()


def _await_end(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has the latter, which is as hard there
