"""What a layer in one direction computes with, as the kernels in C see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from sparse_rnn.engine.library import CELLS, ROLES, Call, describe_kernels, pointer
from sparse_rnn.engine.slots import slots
from sparse_rnn.engine.windows import Windows, windows_of
from sparse_rnn.torch_compat import version_of


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
        lasting: Whether the same values are used in many calls, so that a second order of them is worth its making.
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
    lasting: bool = False

    @property
    def tensors(self) -> list[Tensor]:
        """All that a gradient can be asked for."""
        return [*self.values, *(tensor for tensor in (self.bias, self.peephole) if tensor is not None)]

    @cached_property
    def units(self) -> int:
        """Number of units, H."""
        return (len(self.offsets[0]) - 1) // len(slots(self.cell, self.roles[0]))

    @cached_property
    def outputs(self) -> int:
        """Number of outputs, P."""
        return len(self.offsets[self.roles.index("hr")]) - 1 if "hr" in self.roles else self.units

    @cached_property
    def constant(self) -> Call:
        """What is the same in all calls; it holds as long as the tensors stay where they are."""
        call = Call(cell=CELLS.index(self.cell), units=self.units, outputs=self.outputs)
        call.bias, call.peephole = pointer(self.bias), pointer(self.peephole)
        kernels = self.roles, self.values, self.offsets, self.columns, self.scales
        describe_kernels(call, *kernels, inputs=[0] * len(self.roles))
        return call

    @cached_property
    def one_sequence(self) -> OneSequence:
        """What is the same in all calls with one sequence."""
        return OneSequence()

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


@dataclass(frozen=True)
class _Found:
    versions: Sequence[int]
    call: Call
    windows: Sequence[Windows]
    # Bytes of the rows that calls with one sequence do not read, as they read windows instead.
    unread: int


class OneSequence:
    """What is the same in all calls with one sequence; it is found in the first of them."""

    def __init__(self) -> None:
        # As one object, since other threads may look for it meanwhile.
        self._found: _Found | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the windows of its kernels."""
        return 0 if self._found is None else sum(windows.nbytes for windows in self._found.windows)

    @property
    def unread(self) -> int:
        """Bytes of what the windows stand in for."""
        return 0 if self._found is None else self._found.unread

    def constant(self, weights: Weights, inputs: int) -> Call:
        """Describe the weights, with windows that hold what the weights are now."""
        tensors = [*weights.values, *weights.offsets, *weights.columns]
        # Of a tensor that was made in inference mode nobody knows whether it has changed.
        if not weights.lasting or any(tensor.is_inference() for tensor in tensors):
            return weights.constant
        versions = [version_of(tensor) for tensor in tensors]
        found = self._found
        if found is None or found.versions != versions:
            self._found = found = _with_windows(weights, inputs, versions)
        return found.call


def _with_windows(weights: Weights, inputs: int, versions: Sequence[int]) -> _Found:
    call = Call.from_buffer_copy(weights.constant)
    read = {"ih": inputs, "hh": weights.outputs, "ch": weights.units}
    made, unread = [], 0
    kernels = zip(weights.roles, weights.values, weights.offsets, weights.columns, strict=True)
    for role, values, offsets, columns in kernels:
        if role not in read:
            continue
        windows = windows_of(values, offsets, columns, slots(weights.cell, role), read[role])
        if windows is not None:
            windows.describe(call.kernels[ROLES.index(role)])
            made.append(windows)
            unread += values.nbytes + offsets.nbytes + columns.nbytes
    call.windows = made  # whoever runs a call keeps what it points to, whatever others find meanwhile
    return _Found(versions, call, made, unread)


Layers: TypeAlias = Sequence[Sequence[Weights]]
