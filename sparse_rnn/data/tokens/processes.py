"""Do tasks in several processes."""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

T = TypeVar("T")


def available_cores() -> int:
    """Return the number of processor cores that this process may use.

    Example:
        >>> from sparse_rnn.data.tokens.processes import available_cores
        >>> available_cores() >= 1
        True
    """
    # A job scheduler often grants fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_turn(work: Callable[[T], None], tasks: Sequence[T]) -> Iterator[T]:
    """Do tasks one after the other, in this process, and yield each when it is done.

    Args:
        work: Function that does a task.
        tasks: The tasks.

    Yields:
        The tasks, in their order.

    Example:
        >>> from sparse_rnn.data.tokens.processes import in_turn
        >>> done = []
        >>> list(in_turn(done.append, [3, 1, 2]))
        [3, 1, 2]
        >>> done
        [3, 1, 2]
    """
    for task in tasks:
        work(task)
        yield task


def in_processes(work: Callable[[T], None], tasks: Sequence[T], jobs: int) -> Iterator[T]:
    """Do tasks in processes of their own, several at a time, and yield each task when it is done.

    The process of a task ends with the task. The workers of a pool would stay for ever, and keep the locks that they
    inherited, where the process that started them is killed.

    Args:
        work: Function that does a task.
        tasks: The tasks, which are started in this order.
        jobs: Number of processes at a time.

    Yields:
        The tasks, in the order in which they are done.

    Raises:
        ChildProcessError: If a process was killed.
        Exception: If ``work`` raised it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.tokens.processes import in_processes
        >>> with tempfile.TemporaryDirectory() as name:
        ...     paths = [Path(name) / "one", Path(name) / "two"]
        ...     done = list(in_processes(Path.touch, paths, jobs=2))
        ...     sorted(path.name for path in done if path.exists())
        ['one', 'two']
    """
    # A fork runs no script of the user's a second time, as other ways to start a process do. Elsewhere than on Linux,
    # forks are not reliable.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    waiting = list(reversed(tasks))
    running: dict[Any, tuple[Any, T]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.pop()
                reader, writer = context.Pipe(duplex=False)
                process = context.Process(target=_answer, args=(work, task, writer))
                with warnings.catch_warnings():
                    # Python 3.12 warns of forks beside threads, whose locks stay locked; the work takes none.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    process.start()
                writer.close()
                running[reader] = process, task
            for reader in wait(list(running)):
                process, task = running.pop(reader)
                error = _read_answer(reader)
                process.join()
                if error is not None:
                    raise error
                yield task
    finally:
        for process, _ in running.values():
            process.kill()
            process.join()


def _answer(work: Callable[[T], None], task: T, writer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends this process
    try:
        work(task)
    except Exception as error:
        writer.send(error)
    else:
        writer.send(None)


def _read_answer(reader: Any) -> Exception | None:
    try:
        with reader:
            return reader.recv()
    except EOFError:
        return ChildProcessError("one of its processes was killed, perhaps for want of memory")
