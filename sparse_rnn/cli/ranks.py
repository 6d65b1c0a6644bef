"""Who speaks where several ranks of a command fail: one of them, about what went wrong first."""

from __future__ import annotations

import os
import time

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # where launchers, Lightning's own too, tell it
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
_PARENT = os.getppid()  # as it was, as whoever adopts an orphan has any number
_SECONDS = 10.0  # a first rank that fails takes this long to end, where much else runs


def is_first_rank() -> bool:
    """Tell whether this process is the first rank, or the only one.

    Example:
        >>> is_first_rank()
        True
    """
    return next((int(os.environ[name]) for name in _RANKS if name in os.environ), 0) == 0


def leaves_it_to_the_first_rank() -> bool:
    """Tell, on another rank that fails, whether the first one ends, too, and so says why.

    Lightning starts the other ranks as children of the first. One that lives on waits for this rank, and knows nothing
    of its error.
    """
    if is_first_rank():
        return False
    until = time.monotonic() + _SECONDS
    while os.getppid() == _PARENT:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def lost_another(error: BaseException) -> bool:
    """Tell whether an error says no more than that another rank is gone, in the words of gloo or NCCL.

    Example:
        >>> lost_another(RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:22406")), lost_another(
        ...     ValueError("ours")
        ... )
        (True, False)
    """
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST)
