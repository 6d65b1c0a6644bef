"""One process at a time: locks that the system takes back from a process that is killed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sparse_rnn.errors import UsageError


@contextmanager
def alone(lock: Path, busy: str | None = None) -> Iterator[None]:
    """Run what follows in one process at a time.

    Args:
        lock: A file of no content, which stays; its folder is created where missing.
        busy: What to say where another process holds the lock; None to wait for it.

    Raises:
        UsageError: If another process holds it and ``busy`` is given.
        OSError: If the file cannot be made.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.locks import alone
        >>> with tempfile.TemporaryDirectory() as folder, alone(Path(folder, ".lock")):
        ...     print("nobody else")
        nobody else
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock, timeout=-1 if busy is None else 0)
    try:
        held.acquire()
    except Timeout:
        raise UsageError(busy or "") from None
    try:
        yield
    finally:
        held.release()


@contextmanager
def alone_for_now(lock: Path) -> Iterator[None]:
    """Run what follows in one process at a time, waiting for others, and leave no file behind.

    Whoever holds the lock removes its file. One who has opened the file before that gets a lock that nobody else will
    ask for, and takes another one.

    Args:
        lock: A file of no content, in a folder that is there.

    Raises:
        OSError: If the file cannot be made.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.locks import alone_for_now
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with alone_for_now(Path(folder, ".lock")):
        ...         print([path.name for path in Path(folder).iterdir()])
        ...     print(list(Path(folder).iterdir()))
        ['.lock']
        []
    """
    if sys.platform == "win32":  # there the file cannot be removed while others have it open
        with alone(lock):
            yield
        with suppress(OSError):
            lock.unlink()
        return
    import fcntl  # not on Windows

    while True:
        with lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                try:
                    yield
                finally:
                    if os.fstat(file.fileno()).st_nlink:  # nobody has cleaned up meanwhile
                        lock.unlink()
                return
