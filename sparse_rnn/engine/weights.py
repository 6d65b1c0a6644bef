"""What a layer in one direction computes with, as the kernels in C see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from sparse_rnn.engine import ops
from sparse_rnn.engine.library import CELLS, ROLES, Call, KernelPointers, pointer


@dataclass(frozen=True)
class Weights:
    """What a layer in one direction computes with; see :func:`sparse_rnn.engine.ops.layer`.

    Attributes:
        cell: Its cell.
        roles: Its kernels.
        values: For each of them its kept weights.
        offsets: For each of them where its rows begin.
        columns: For each of them which input a weight reads.
        blocks: Three tensors for each of them, or none.
        scales: One tensor for each of them where the values are of 8 bits, or none.
        bias: [H, S], or None.
        peephole: [3, H], or None.
    """

    cell: str
    roles: Sequence[str]
    values: Sequence[Tensor]
    offsets: Sequence[Tensor]
    columns: Sequence[Tensor]
    blocks: Sequence[Tensor] = ()
    scales: Sequence[Tensor] = ()
    bias: Tensor | None = None
    peephole: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All that a gradient can be asked for."""
        return [*self.values, *(tensor for tensor in (self.bias, self.peephole) if tensor is not None)]

    @cached_property
    def units(self) -> int:
        """Number of units, H."""
        return (len(self.offsets[0]) - 1) // len(ops.slots(self.cell, self.roles[0]))

    @cached_property
    def outputs(self) -> int:
        """Number of outputs, P."""
        return len(self.offsets[self.roles.index("hr")]) - 1 if "hr" in self.roles else self.units

    @cached_property
    def constant(self) -> Call:
        """What is the same in all calls; it holds as long as the tensors stay where they are."""
        call = Call(cell=CELLS.index(self.cell), units=self.units, outputs=self.outputs)
        call.bias, call.peephole = pointer(self.bias), pointer(self.peephole)
        for index, role in enumerate(self.roles):
            call.kernels[ROLES.index(role)] = KernelPointers(
                offsets=pointer(self.offsets[index]),
                columns=pointer(self.columns[index]),
                values=pointer(self.values[index]),
                scales=pointer(self.scales[index]) if self.scales else None,
                type=ops.TYPES[self.values[index].dtype],
                kept=self.values[index].shape[0],
            )
        return call

    def widened(self, dtype: torch.dtype) -> Weights:
        """Return the same with values of another type; what gradients are asked for is computed in one type."""
        values = [own.to(dtype) for own in self.values]
        if self.scales:
            values = [
                own * torch.repeat_interleave(scale, offsets.diff(), output_size=own.shape[0])
                for own, scale, offsets in zip(values, self.scales, self.offsets, strict=True)
            ]
        # Not by replace(), which PyTorch 2.6 cannot compile.
        kernels = self.roles, values, self.offsets, self.columns, self.blocks
        return Weights(self.cell, *kernels, bias=self.bias, peephole=self.peephole)


Layers: TypeAlias = Sequence[Sequence[Weights]]
