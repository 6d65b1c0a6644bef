"""Which weights of a kernel are kept, in the order in which the kernels in C go through them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from sparse_rnn.engine.library import kernels, library, pointer
from sparse_rnn.errors import UsageError


class TooLargeError(UsageError):
    """A kernel has more inputs or rows than the sparse engine counts."""


# Numbers of 16 bits name inputs and slots.
MOST = 65536
BLOCK = 256


def is_countable(rows: int, inputs: int, gates: int, slots_of_unit: int) -> bool:
    """Tell whether 16 bits name the inputs and slots of a kernel [rows, inputs], and 31 its weights.

    Example:
        >>> is_countable(4 * 16384, 10, 4, 4), is_countable(4 * 16385, 10, 4, 4)
        (True, False)
    """
    return max(inputs, rows // gates * slots_of_unit) <= MOST and rows * inputs < 2**31


@dataclass(frozen=True)
class Pattern:
    """The positions of the kept weights of a kernel [G·H, I].

    The rows of the kernel are ordered by unit, and by gate within a unit, so that a unit's gates are computed together.

    Attributes:
        offsets: Where a row begins, [G·H + 1], int32; the last is the number of weights kept.
        columns: Which input a weight reads, [kept], uint16.
        positions: Where a weight is in the flattened dense kernel, [kept], int32.
        inputs: Number of inputs, I.
        gates: Number of gates, G.
        slots: To which slot of a unit each gate's row adds; see ``slot_of`` in ``cells.h``.
        slots_of_unit: Number of slots of a unit.
    """

    offsets: Tensor
    columns: Tensor
    positions: Tensor
    inputs: int
    gates: int
    slots: tuple[int, ...]
    slots_of_unit: int

    @classmethod
    @torch.inference_mode(False)  # a pattern that a validation is the first to need is trained with, too
    def of(cls, mask: Tensor, slots: tuple[int, ...], slots_of_unit: int) -> Pattern:
        """List the positions of a mask [G·H, I], True = kept; its G row blocks are the gates.

        Raises:
            TooLargeError: If the kernel is too large.
        """
        gates = len(slots)
        units, inputs = len(mask) // gates, mask.shape[1]
        if not is_countable(len(mask), inputs, gates, slots_of_unit):
            raise TooLargeError(
                f"a kernel {list(mask.shape)} is too large for the sparse engine, which counts in 16 bits"
            )
        mask = mask.to("cpu", torch.bool).contiguous()
        listed = _list_by_torch if library() is None else _list
        return cls(*listed(mask, gates, units, inputs), inputs, gates, slots, slots_of_unit)

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return len(self.columns)

    @cached_property
    def blocks(self) -> tuple[Tensor, ...]:
        """The transpose in blocks of slots: where each input's entries begin, their slots, their places in values.

        Only the kernels in C read it: where they are not built it is empty.
        """
        if library() is None:
            return ()
        return transposed(self.offsets, self.columns, self.inputs, self.slots, self.slots_of_unit)


def _list(mask: Tensor, gates: int, units: int, inputs: int) -> tuple[Tensor, Tensor, Tensor]:
    offsets = torch.empty(len(mask) + 1, dtype=torch.int32, device="cpu")
    kernels().count(pointer(mask), gates, units, inputs, pointer(offsets))
    kept = int(offsets[-1])
    columns = torch.empty(kept, dtype=torch.uint16, device="cpu")
    positions = torch.empty(kept, dtype=torch.int32, device="cpu")
    kernels().list(pointer(mask), gates, units, inputs, pointer(offsets), pointer(columns), pointer(positions))
    return offsets, columns, positions


def _list_by_torch(mask: Tensor, gates: int, units: int, inputs: int) -> tuple[Tensor, Tensor, Tensor]:
    by_unit = mask.view(gates, units, inputs).transpose(0, 1).reshape(-1, inputs)
    rows, columns = by_unit.nonzero(as_tuple=True)
    offsets = F.pad(by_unit.sum(1).cumsum(0), (1, 0))
    positions = (rows % gates * units + rows // gates) * inputs + columns
    return offsets.int(), columns.to(torch.uint16), positions.int()


@torch.inference_mode(False)
def transposed(
    offsets: Tensor, columns: Tensor, inputs: int, slots: tuple[int, ...], slots_of_unit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Order the positions of a pattern by blocks of slots, then by input; see ``engine.h``.

    Raises:
        TooLargeError: If 16 bits do not name the slots, which only gradients need.
    """
    rows, gates = len(offsets) - 1, len(slots)
    if not is_countable(rows, inputs, gates, slots_of_unit):
        units = rows // gates
        raise TooLargeError(
            f"{units:,} units are too many for gradients, whose places the sparse engine counts in 16 bits"
        )
    blocks = -(-rows // gates * slots_of_unit // BLOCK)
    slot_of_gate = torch.tensor(slots, dtype=torch.int32, device="cpu")
    block_offsets = torch.empty(blocks * inputs + 2, dtype=torch.int32, device="cpu")
    block_rows, block_order = torch.empty_like(columns), torch.empty_like(columns, dtype=torch.int32)
    kernels().transpose(
        pointer(offsets),
        pointer(columns),
        rows,
        inputs,
        gates,
        slots_of_unit,
        pointer(slot_of_gate),
        pointer(block_offsets),
        pointer(block_rows),
        pointer(block_order),
    )
    return block_offsets, block_rows, block_order
