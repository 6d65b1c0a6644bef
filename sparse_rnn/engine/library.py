"""The kernels in C: whether they are there, and their functions.

They are built when the package is installed, where a compiler is at hand (see ``hatch_build.py``); nothing of torch's
C++ is in them, so that one build serves every version of Python and torch.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

BUILT = Path(__file__).with_name("_kernels.so")
NOT_BUILT = "The sparse kernels are not built: install a C compiler, and then sparse-rnn anew from its sources."

ROLES = ("ih", "hh", "ch", "hr")
CELLS = ("rnn_tanh", "rnn_relu", "gru", "lstm")
TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.int8: 3}
# Sequences that share a weight.
WIDEST = 32

_POINTER, _COUNT, _TEXT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p


class KernelPointers(ctypes.Structure):
    """``kernel`` of ``engine.h``."""

    _fields_ = [
        *(
            (name, _POINTER)
            for name in (
                "offsets",
                "columns",
                "values",
                "scales",
                "block_offsets",
                "block_rows",
                "block_order",
                "block_values",
                "gradient",
            )
        ),
        ("inputs", _COUNT),
        ("type", _COUNT),
        ("kept", _COUNT),
        *((f"window_{name}", _POINTER) for name in ("ends", "sums", "starts", "places", "values")),
    ]


class Strides(ctypes.Structure):
    """``strides`` of ``engine.h``."""

    _fields_ = [("step", _COUNT), ("sequence", _COUNT)]


class Call(ctypes.Structure):
    """``call`` of ``engine.h``; attributes that are not set are absent."""

    windows: Sequence[object]  # beside the fields: what some of them point to

    _fields_ = [
        *((name, _COUNT) for name in ("cell", "type", "threads", "reverse", "even")),
        *((name, _COUNT) for name in ("steps", "batch", "inputs", "units", "outputs")),
        *((name, Strides) for name in ("x_strides", "grad_out_strides")),
        ("starts", _POINTER),
        ("lengths", _POINTER),
        ("kernels", KernelPointers * len(ROLES)),
        *((name, _POINTER) for name in ("bias", "peephole", "x", "h_0", "c_0", "out", "h_n", "c_n")),
        *((name, _POINTER) for name in ("inputs_kept", "h", "c", "gates", "unprojected")),
        *((name, _POINTER) for name in ("grad_out", "grad_h_n", "grad_c_n")),
        *((name, _POINTER) for name in ("slopes", "grad_states", "input_scratch", "projected")),
        *((name, _POINTER) for name in ("grad_x", "grad_h_0", "grad_c_0", "grad_bias", "grad_peephole")),
    ]


_ARGUMENTS = {
    "forward": [ctypes.POINTER(Call)],
    "backward": [ctypes.POINTER(Call)],
    "backend": [],
    "select": [_TEXT],
    "count": [_POINTER, _COUNT, _COUNT, _COUNT, _POINTER],
    "list": [_POINTER, _COUNT, _COUNT, _COUNT, _POINTER, _POINTER, _POINTER],
    "transpose": [_POINTER, _POINTER, _COUNT, _COUNT, _COUNT, _COUNT, _POINTER, _POINTER, _POINTER, _POINTER],
    "reads_windows": [],
    "windows": [_POINTER] * 3 + [_COUNT] * 3 + [_POINTER] * 6,
    "take": [_POINTER, _POINTER, _COUNT, _COUNT, _COUNT, _POINTER],
    "put": [_POINTER, _POINTER, _COUNT, _COUNT, _COUNT, _POINTER],
}
_RESULTS = {"backend": _TEXT, "select": ctypes.c_int, "reads_windows": ctypes.c_int, "windows": _COUNT}


class Library:
    """The functions of the kernels, without their prefix ``sparse_rnn_``; ``engine.h`` says what each does.

    Args:
        path: The shared library.

    Raises:
        OSError: If it is not there, or is not for this machine.
        AttributeError: If it was built from other sources and has not all functions.
    """

    forward: Callable[..., None]
    backward: Callable[..., None]
    backend: Callable[[], bytes]
    select: Callable[[bytes | None], int]
    count: Callable[..., None]
    list: Callable[..., None]
    transpose: Callable[..., None]
    reads_windows: Callable[[], int]
    windows: Callable[..., int]
    take: Callable[..., None]
    put: Callable[..., None]

    def __init__(self, path: Path) -> None:
        loaded = ctypes.CDLL(str(path))
        for name, arguments in _ARGUMENTS.items():
            function = getattr(loaded, f"sparse_rnn_{name}")
            function.argtypes, function.restype = arguments, _RESULTS.get(name)
            setattr(self, name, function)


@lru_cache(maxsize=1)
def library() -> Library | None:
    """Load the kernels; None where they were not built or do not fit this machine."""
    try:
        return Library(BUILT)
    except (OSError, AttributeError):
        return None


def kernels() -> Library:
    """Return the kernels.

    Raises:
        RuntimeError: If there are none.
    """
    loaded = library()
    if loaded is None:
        raise RuntimeError(NOT_BUILT)
    return loaded


@lru_cache(maxsize=1)
def warn_not_built() -> None:
    """Say once that torch's operations stand in for the kernels."""
    warnings.warn(f"{NOT_BUILT} PyTorch's own operations stand in for them, which are slower.", stacklevel=2)


def pointer(tensor: Tensor | None) -> int | None:
    """Return where a tensor lies, for C; None for none."""
    if tensor is None:
        return None
    if not tensor.is_cpu:
        raise RuntimeError(f"The kernels in C were given a tensor on {tensor.device}, and read those on the CPU.")
    return tensor.data_ptr()


def describe_kernels(
    call: Call,
    roles: Sequence[str],
    values: Sequence[Tensor],
    offsets: Sequence[Tensor],
    columns: Sequence[Tensor],
    scales: Sequence[Tensor],
    inputs: Sequence[int],
) -> None:
    """Tell a call where the weights of each kernel are, and how many inputs it has, which backward passes ask for."""
    for index, role in enumerate(roles):
        call.kernels[ROLES.index(role)] = KernelPointers(
            offsets=pointer(offsets[index]),
            columns=pointer(columns[index]),
            values=pointer(values[index]),
            scales=pointer(scales[index]) if scales else None,
            inputs=inputs[index],
            type=TYPES[values[index].dtype],
            kept=values[index].shape[0],
        )
