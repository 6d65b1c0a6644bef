"""Who speaks where several ranks of a command fail: one of them, about what went wrong first."""

from __future__ import annotations

import os
import time
from datetime import timedelta

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


def leaves_it_to_another_rank() -> bool:
    """Tell, on a rank that fails, whether another one says why, or will.

    torchrun keeps a store that all ranks reach, whatever becomes of them: the first one to fail leaves its mark there.
    Lightning starts the other ranks as children of the first. One that lives on waits for this rank, and knows nothing
    of its error. Other launchers tell nothing of other ranks.
    """
    marked = _marked_before()
    if marked is not None:
        return marked
    if is_first_rank():
        return False
    until = time.monotonic() + _SECONDS
    while os.getppid() == _PARENT:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _marked_before() -> bool | None:
    """Leave a mark in torchrun's store, and tell whether there was one; None where there is no such store."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import TCPStore  # slow to import, and not there on every system

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=_SECONDS))
        return store.add(f"sparse_rnn/told/{attempt}", 1) > 1
    except RuntimeError:  # torchrun has ended, as where a machine was lost
        return None


def lost_another(error: BaseException) -> bool:
    """Tell whether an error says no more than that another rank is gone, in the words of gloo or NCCL.

    Example:
        >>> lost_another(RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:22406")), lost_another(
        ...     ValueError("ours")
        ... )
        (True, False)
    """
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST)
