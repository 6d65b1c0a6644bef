"""Settings that torch and Python have for the whole process only, changed so that threads do not undo each other's.

Everything else that is changed while weights are scored belongs to the scored model or to the thread.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import RLock
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


class Switch:
    """A setting of the whole process: the first to come sets it, the last to leave puts it back.

    Were each of several threads to put back what it found, one would undo what another still needs, and the last would
    leave behind what the first had set. Threads that ask for nothing compute the same by other means meanwhile.

    Args:
        setting: Makes the context manager that changes the setting.

    Example:
        >>> switch = Switch(lambda: torch.backends.cudnn.flags(enabled=False))
        >>> with switch.on():
        ...     torch.backends.cudnn.enabled
        False
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[Any]]) -> None:
        self._setting = setting
        self._inside = 0
        self._set = ExitStack()
        self._lock = RLock()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Have the setting changed inside, whatever other threads do."""
        with self._lock:
            if not self._inside:
                self._set.enter_context(self._setting())
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._set.close()


@contextmanager
def _ignoring(message: str) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, UserWarning)
        yield


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_EAGER = Switch(lambda: torch.compiler.set_stance("force_eager"))
_CUDNN_OFF = Switch(lambda: torch.backends.cudnn.flags(enabled=False))
_MATH_ATTENTION = Switch(lambda: sdpa_kernel(SDPBackend.MATH))
_CHUNKS_APART = Switch(lambda: _ignoring("RNN module weights are not part of single contiguous chunk"))
_CSR_IN_BETA = Switch(lambda: _ignoring("Sparse CSR tensor support is in beta"))
_ONE_THREAD = Switch(lambda: _threads(1))


@contextmanager
def eager() -> Iterator[None]:
    """Run compiled models as they were written, inside.

    ``torch.compiler.set_stance`` loads the compiler, which takes seconds: as long as nobody has loaded it there is no
    compiled model.

    Example:
        >>> with eager():
        ...     torch.ones(1) + 1
        tensor([2.])
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with _EAGER.on():
        yield


def cudnn_off() -> AbstractContextManager[None]:
    """Compute without cuDNN, which refuses the backward pass of a recurrent layer in evaluation mode.

    Example:
        >>> with cudnn_off():
        ...     torch.backends.cudnn.enabled
        False
    """
    return _CUDNN_OFF.on()


def math_attention() -> AbstractContextManager[None]:
    """Compute attention by plain operations, which can be differentiated twice.

    Example:
        >>> with math_attention():
        ...     torch.backends.cuda.flash_sdp_enabled()
        False
    """
    return _MATH_ATTENTION.on()


def chunks_apart() -> AbstractContextManager[None]:
    """Let the weights of a recurrent layer lie apart on CUDA without torch's advice to move them together.

    Example:
        >>> with chunks_apart():
        ...     pass
    """
    return _CHUNKS_APART.on()


def csr_in_beta() -> AbstractContextManager[None]:
    """Make tensors of torch's compressed rows without its notice that these are in beta.

    Example:
        >>> with csr_in_beta():
        ...     torch.eye(2).to_sparse_csr().layout
        torch.sparse_csr
    """
    return _CSR_IN_BETA.on()


def one_thread() -> AbstractContextManager[None]:
    """Let torch's operations on the CPU take one thread.

    Example:
        >>> with one_thread():
        ...     torch.get_num_threads()
        1
    """
    return _ONE_THREAD.on()
