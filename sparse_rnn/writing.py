"""Files that are there whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sparse_rnn.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PART, _ABANDONED = ".part", 3600  # seconds
# As torch.save says it of a full disk, whether it notices at the first bytes, later, or at the end.
_FULL = ("file write failed", "iostream error", "inline_container")
_ADVICE = "make room, or give another place; what was there before is as it was."


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a place to write a file to, from which it moves to its own once it is whole and on the disk.

    Until then an earlier file stays as it is, and of several that write it at once each writes a whole one. What a
    killed process leaves is hidden, and removed with the next writing once nobody has written to it for an hour.

    Args:
        path: The file; folders above it are made.

    Raises:
        OSError: If it cannot be written there.

    Example:
        >>> with whole_file(Path("model.bin")) as unfinished:
        ...     _ = unfinished.write_bytes(b"whole")
        >>> Path("model.bin").read_bytes()
        b'whole'
    """
    if path.exists() and not path.is_file():  # a new name would take the place of a device for the whole machine
        raise OSError(errno.EEXIST, "it is a folder, a device or a pipe")
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    unfinished = path.with_name(f".{path.name}.{uuid4().hex[:8]}{_PART}")
    try:
        unfinished.open("xb").close()  # where it cannot be written the system says why
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync(path.parent)
    finally:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a place to write a file to, as :func:`whole_file` does, and say in one sentence why it cannot be written.

    Args:
        path: The file; folders above it are made.

    Raises:
        UsageError: If it cannot be written there.

    Example:
        >>> with written_whole(Path("/dev/null")) as unfinished:
        ...     unfinished.touch()
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: /dev/null cannot be written (it is a folder, a device or a pipe): make room, ...
    """
    try:
        with whole_file(path) as unfinished:
            yield unfinished
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror or error}): {_ADVICE}") from error
    except RuntimeError as error:
        if not any(words in str(error) for words in _FULL):
            raise
        raise UsageError(f"{path} cannot be written (the disk is full, or gone): {_ADVICE}") from error


def write_figure(path: Path, figure: Figure, **options: Any) -> None:
    """Write a figure, in the format that the ending of its file names.

    Args:
        path: The file, as ``epochs.png``.
        figure: What Matplotlib has drawn.
        options: Further arguments of ``Figure.savefig``.

    Raises:
        UsageError: If it cannot be written there.

    Example:
        >>> from matplotlib.figure import Figure
        >>> write_figure(Path("empty.svg"), Figure())
        >>> "<svg" in Path("empty.svg").read_text()
        True
    """
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix.removeprefix("."), **options)


def _sweep(path: Path) -> None:
    """Remove what killed processes have left of a file."""
    for left in path.parent.glob(f".{escape(path.name)}.*{_PART}"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()


def _sync(folder: Path) -> None:
    """Put the new name on the disk too; not every system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
