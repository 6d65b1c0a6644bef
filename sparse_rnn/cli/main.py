"""``python -m sparse_rnn``: hands the arguments to a command and says in one line what the user can mend."""

import errno
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import NoReturn

from sparse_rnn.cli.help import LIGHTNING, OURS, overview, unknown, version_line
from sparse_rnn.cli.ranks import leaves_it_to_another_rank, lost_another
from sparse_rnn.compare.orphans import end_with_parent
from sparse_rnn.errors import UsageError, check_text, one_line

_OF_A_NAME = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP),
    *(errno.ENOENT, errno.EEXIST, errno.EISDIR),
}
_GO_ON = {"compare", "study"}
_OF_A_DISK = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows has no quota


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: What follows the program's name; None takes it from ``sys.argv``.

    Raises:
        SystemExit: With status 2 and one line on stderr where a value that the user gave is at fault, 130 after Ctrl-C,
            143 after a polite kill.

    Example:
        >>> main(["compare", "--config", "gru_digits.yaml", "--sparsity", "0.9"])  # stderr says what is missing
        Traceback (most recent call last):
        SystemExit: 2
    """
    args = list(sys.argv[1:] if args is None else args)
    end_with_parent()
    try:
        for word in args:
            check_text("The argument", word)
        with _polite_end(args[:1]), _full_disk_told_once(), _whoever_reads():
            with _without_collector():
                command = _command(args[:1])
            command(args)
    except UsageError as error:
        _exit(str(error))
    except OSError as error:
        # Of whatever library opens a file; what else a system refuses may be a mistake of ours.
        if error.errno not in _OF_A_DISK and not (error.errno in _OF_A_NAME and error.filename):
            raise
        where = "A file" if error.filename is None else f"{str(error.filename)[:200]!r}"
        _exit(f"{where} cannot be read or written ({error.strerror}): give another place, or make room there.")
    except RuntimeError as error:
        if not lost_another(error):
            raise
        if not leaves_it_to_another_rank():
            sys.stderr.write("Stopped, as another rank has ended, which says why.\n")
        sys.exit(2)
    except (KeyboardInterrupt, _Terminated) as stop:
        does = "goes on" if args[0] in _GO_ON else "starts anew"
        sys.stderr.write(f"Stopped. What was written before is as it was; the same command {does}.\n")
        sys.exit(128 + (signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT))


@contextmanager
def _whoever_reads() -> Iterator[None]:
    """End in silence where nobody reads on what is printed, as behind ``| head``."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # what is left would be tried, and complained about, at Python's end
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + getattr(signal, "SIGPIPE", 13))


def _nobody_reads() -> bool:
    try:
        print(flush=True)  # where nothing is buffered, only what is written meets the closed pipe
    except BrokenPipeError:
        return True
    return False


@contextmanager
def _polite_end(name: Sequence[str]) -> Iterator[None]:
    """Let our own commands clean up where they are asked to end, as Ctrl-C does; Lightning's see to it themselves."""
    ours = len(name) == 1 and name[0] in OURS and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminated) if ours else None
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _full_disk_told_once() -> Iterator[None]:
    """Leave what a thread meets on a full disk to those who wait for it, as for TensorBoard's writer of events."""
    before = threading.excepthook

    def hook(found: threading.ExceptHookArgs) -> None:
        if not (isinstance(found.exc_value, OSError) and found.exc_value.errno in _OF_A_DISK):
            before(found)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


class _Terminated(SystemExit):
    """A polite kill; what would catch Ctrl-C on its way, as Lightning does, lets it pass."""


def _terminated(signum: int, frame: object) -> NoReturn:
    raise _Terminated(128 + signum)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Import in less time: what is imported stays, and Python need not look for garbage among it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _command(name: Sequence[str]) -> Callable[[list[str]], object]:
    """Find the command of that name; what it needs is imported only now, as it would slow the start of all others."""
    if len(name) == 1 and name[0] in OURS:
        command = getattr(import_module(f"sparse_rnn.cli.{name[0]}"), name[0])
        return lambda args: command(args[1:])
    if not name or name[0] in ("-h", "--help"):
        return lambda args: print(overview())
    if name[0] == "--version":
        return lambda args: print(version_line())
    if not name[0].startswith("-") and name[0] not in LIGHTNING:
        raise unknown(name[0])
    from sparse_rnn.cli.fit import PruningCLI

    return PruningCLI


def _exit(message: str) -> NoReturn:
    if not leaves_it_to_another_rank():
        sys.stderr.write(f"error: {one_line(message)}\n")
    sys.exit(2)
