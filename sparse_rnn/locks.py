"""One process at a time: locks that the system takes back from a process that is killed."""

from collections.abc import Iterator
from contextlib import contextmanager
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
