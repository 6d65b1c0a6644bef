"""A second order of a layer's weights, in which the kernels in C go through one sequence faster; see ``engine.h``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sparse_rnn.engine.library import KernelPointers, kernels, pointer

LANES, ROWS, UNITS, WIDTH, STEPS = 16, 32, 32, 64, 2
# Where most lanes of a step have no weight, going through the rows is as fast, and needs no second order.
MOST_BYTES_OF_A_WEIGHT = 8
_BYTES_OF_A_LANE = 5


@dataclass(frozen=True)
class Windows:
    """The weights of a kernel by windows of columns.

    Attributes:
        ends: Where the windows of a group of rows end.
        sums: Where the sums of its rows belong.
        starts: The first column of a window.
        places: Which column of the window each weight reads, and of which row it is.
        values: The weights.
    """

    ends: Tensor
    sums: Tensor
    starts: Tensor
    places: Tensor
    values: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def describe(self, kernel: KernelPointers) -> None:
        """Tell the kernels in C where the windows are."""
        for field in fields(self):
            setattr(kernel, f"window_{field.name}", pointer(getattr(self, field.name)))


def windows_of(values: Tensor, offsets: Tensor, columns: Tensor, slots: Sequence[int], inputs: int) -> Windows | None:
    """Order the weights of a kernel by windows.

    Args:
        values: Its kept weights.
        offsets: Of its pattern.
        columns: Of its pattern.
        slots: To which slot of a unit each gate's row adds.
        inputs: How many inputs it has.

    Returns:
        The windows; None where they are no gain, or both orders would be larger than the dense kernel.
    """
    if values.dtype != torch.float32 or inputs < WIDTH or not kernels().reads_windows():
        return None
    gates = len(slots)
    units = (len(offsets) - 1) // gates
    groups = -(-units // UNITS) * gates
    ends, sums = _empty(groups, dtype=torch.int32), _empty(groups, ROWS, dtype=torch.uint8)
    slot_of_gate = torch.tensor(slots, dtype=torch.int32, device="cpu")
    pattern = pointer(offsets), pointer(columns), pointer(values), gates, units, inputs, pointer(slot_of_gate)
    own = pointer(ends), pointer(sums)
    count = kernels().windows(*pattern, *own, None, None, None)
    size, rows_size = count * STEPS * LANES * _BYTES_OF_A_LANE, values.nbytes + columns.nbytes
    dense_size = (len(offsets) - 1) * inputs * values.itemsize
    if size > MOST_BYTES_OF_A_WEIGHT * len(values) or size + rows_size > dense_size:
        return None
    starts = _empty(count, dtype=torch.uint16)
    places = _empty(count, STEPS, LANES, dtype=torch.uint8)
    ordered = _empty(count, STEPS, LANES, dtype=torch.float32)
    kernels().windows(*pattern, *own, pointer(starts), pointer(places), pointer(ordered))
    return Windows(ends, sums, starts, places, ordered)


def _empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """Make room for what the kernels in C write, whatever PyTorch's default device and type are."""
    return torch.empty(shape, dtype=dtype, device="cpu")
