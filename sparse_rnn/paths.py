"""Paths that the user gives: places on this machine, and addresses such as ``s3://bucket/run``.

Lightning's loggers and checkpoints write to addresses by fsspec, and so do our checkpoints and predictions. All other
options take places on this machine, and say so: the path of an address would be a folder with its scheme as its name.
"""

from __future__ import annotations

import os
from pathlib import Path

from sparse_rnn.errors import UsageError


def is_address(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path leads to another machine, or wherever else its scheme says.

    Example:
        >>> is_address("https://example.org/last.ckpt"), is_address("last.ckpt")
        (True, False)
    """
    return "://" in str(path)


def check_local(path: object) -> None:
    """Refuse an address where a place on this machine is needed; what is no path is left alone.

    Args:
        path: What the user gave.

    Raises:
        UsageError: If it is an address.

    Example:
        >>> check_local("data/mnist")
        >>> check_local("s3://bucket/mnist")
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: s3://bucket/mnist is an address: give a path on this machine.
    """
    if isinstance(path, (str, os.PathLike)) and is_address(str(path)):
        raise UsageError(f"{str(path)[:200]} is an address: give a path on this machine.")


def is_file(path: str | os.PathLike[str]) -> bool:
    """Tell whether there is a file; what is too long for a name, or cannot be one, is none.

    Example:
        >>> is_file("x" * 300)
        False
    """
    try:
        return os.path.isfile(path)
    except (OSError, ValueError):
        return False


def check_place(option: str, path: Path) -> None:
    """Refuse a place that nothing can be written to, before any work is done for it.

    Args:
        option: What the user calls the place.
        path: The file or folder to be made, with the folders above it.

    Raises:
        UsageError: If the nearest folder above it that exists is none, or cannot be written to.

    Example:
        >>> check_place("--output", Path("new", "small.ckpt"))
        >>> check_place("--output", Path("/dev/null/small.ckpt"))
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: --output /dev/null/small.ckpt cannot be written, as /dev/null is no folder to ...
    """
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise UsageError(f"{option} {path} cannot be written, as {above} is no folder to write to: give another place.")


def check_file_place(option: str, path: Path) -> None:
    """Refuse a place that no file can be written to, as :func:`check_place` does; an earlier file may be there.

    Args:
        option: What the user calls the place.
        path: The file.

    Raises:
        UsageError: If it is a folder, a device or a pipe, or nothing can be written there.

    Example:
        >>> check_file_place("--output", Path("/dev/null"))
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: --output /dev/null cannot be written, as it is a folder, a device or a pipe: ...
    """
    if path.exists() and not path.is_file():
        raise UsageError(
            f"{option} {path} cannot be written, as it is a folder, a device or a pipe: give the path of a file."
        )
    check_place(option, path)


def check_served(name: str, path: object) -> None:
    """Refuse an address that nothing here can write to; other values are left alone.

    Args:
        name: What the user calls the option.
        path: What the user gave.

    Raises:
        UsageError: If fsspec does not know its scheme, or needs a package for it that is not installed.

    Example:
        >>> check_served("dirpath", "checkpoints")
        >>> check_served("dirpath", "nowhere://bucket/run")
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: dirpath=nowhere://bucket/run cannot be reached (Protocol not known: nowhere): ...
    """
    if not isinstance(path, (str, os.PathLike)) or not is_address(str(path)):
        return
    import fsspec  # slow, and needed for addresses only

    try:
        fsspec.get_filesystem_class(str(path).partition("://")[0].rpartition("::")[2])  # schemes may be chained
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{name}={str(path)[:200]} cannot be reached ({str(error).rstrip('.')}): install what is missing, or give "
            "a path on this machine."
        ) from error
