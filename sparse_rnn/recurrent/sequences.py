"""Which calls of a layer make a sequence: a call goes on where it is given the state that an earlier one left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.layers import RecurrentLayer
from sparse_rnn.recurrent.unroll import Unrolled


@dataclass
class CallSequence:
    """Calls of a layer, each of which goes on where the one before it ended.

    Attributes:
        layer: The layer.
        initial: The state that the first call was given; None where it was given none.
        first: The state after the first call.
        last: The state after the last call.
        inputs: What each call read, [T, B, I].
        lengths: The lengths of each call's sequences, [B]; None where all are as long as the input.
        changes: For some of the calls what each unit of the state was multiplied by before them.
        unrolled_call: The first call as it was unrolled, where that is known already.
    """

    layer: RecurrentLayer
    initial: State | None
    first: State
    last: State
    inputs: list[Tensor]
    lengths: list[Tensor | None]
    changes: dict[int, State] = field(default_factory=dict)
    unrolled_call: Unrolled | None = None

    def unrolled(self) -> Unrolled:
        """Return the sequence, unrolled from the state that it began with, on all the inputs."""
        if len(self.inputs) == 1 and self.unrolled_call is not None:
            return self.unrolled_call
        batch = self.inputs[0].shape[1]
        initial = self.initial
        if initial is not None:
            initial = tuple(part.expand(batch, -1) for part in initial)
        if any(lengths is not None for lengths in self.lengths):
            return self._unrolled_by_lengths(initial)
        ends = torch.tensor([0, *(len(x_TBI) for x_TBI in self.inputs)]).cumsum(0).tolist()
        changes = {ends[call]: factors for call, factors in self.changes.items()}
        x_TBI = torch.cat(self._in_order(self.inputs))
        return Unrolled(self.layer, x_TBI, initial, changes=changes)

    def _unrolled_by_lengths(self, initial: State | None) -> Unrolled:
        """Put the calls of every sample one behind the other: each has its own lengths."""
        batch, device = self.inputs[0].shape[1], self.inputs[0].device
        given = zip(self.inputs, self.lengths, strict=True)
        lengths = [torch.full((batch,), len(x), device=device) if n is None else n for x, n in given]
        total = torch.stack(lengths).sum(0)
        steps = int(total.max())
        x_TBI = self.inputs[0].new_zeros(steps, *self.inputs[0].shape[1:])
        start = torch.zeros_like(total)
        samples = torch.arange(batch, device=device)
        for x, length in zip(self._in_order(self.inputs), self._in_order(lengths), strict=True):
            order = torch.arange(len(x), device=device).unsqueeze(1)
            inside = order < length
            x_TBI[(start + order)[inside], samples.expand_as(inside)[inside]] = x[inside]
            start = start + length
        changes: dict[int, State] = {}
        for call, factors in self.changes.items():
            left = torch.stack(lengths[call:]).sum(0)  # sequences end together in the order of reading
            for sample, t in enumerate((steps - left).tolist()):
                at = changes.setdefault(t, tuple(torch.ones_like(factor) for factor in factors))
                for part, factor in zip(at, factors, strict=True):
                    part[sample] = factor[sample]
        return Unrolled(self.layer, x_TBI, initial, total, changes)

    def _in_order(self, of_calls: list[Tensor]) -> list[Tensor]:
        """Put what belongs to the calls into the order of the sequence, which a reverse layer reads backwards."""
        return of_calls[::-1] if self.layer.reverse else of_calls


class Sequences:
    """The calls of some layers, joined to sequences while a model runs.

    A call continues the sequence whose last state it is given, value by value, so a state may be detached or copied on
    its way. It may also have been decayed, masked, scaled or dropped out: each unit multiplied by a number from 0 to 1,
    or by 0 or one and the same positive number. Any other state (none, zeros, one that attention feeds into, one of
    fewer samples) begins a new sequence.
    """

    def __init__(self) -> None:
        self._found: list[CallSequence] = []

    def add(
        self,
        layer: RecurrentLayer,
        x_TBI: Tensor,
        initial: State | None,
        last: State,
        lengths: Tensor | None = None,
        unrolled: Unrolled | None = None,
    ) -> None:
        """Note a call: its inputs, the state that it was given and the one that it left, which must not change."""
        found, factors = self._continued(layer, initial)
        if found is None:
            self._found.append(CallSequence(layer, initial, last, last, [x_TBI], [lengths], unrolled_call=unrolled))
            return
        if factors is not None:
            found.changes[len(found.inputs)] = factors
        found.inputs.append(x_TBI)
        found.lengths.append(lengths)
        found.last = last
        found.unrolled_call = None

    def joined(self) -> list[CallSequence]:
        """Return the sequences in the order of their first calls."""
        return self._found

    def unrolled(self) -> list[Unrolled]:
        """Return the sequences, unrolled, in the order of their first calls."""
        return [sequence.unrolled() for sequence in self._found]

    def _continued(self, layer: RecurrentLayer, given: State | None) -> tuple[CallSequence | None, State | None]:
        if given is None:
            return None, None
        candidates = [sequence for sequence in reversed(self._found) if sequence.layer is layer]
        for sequence in candidates:
            if all(torch.equal(new, old.to(new)) for new, old in zip(given, sequence.last, strict=False)):
                return sequence, None
        if not any(part.any() for part in given):
            return None, None
        for sequence in candidates:
            factors = [_factor(new, old.to(new)) for new, old in zip(given, sequence.last, strict=False)]
            if all(factor is not None for factor in factors):
                return sequence, tuple(torch.atleast_2d(factor) for factor in factors if factor is not None)
        return None, None


def _factor(new: Tensor, old: Tensor) -> Tensor | None:
    """Return what each unit was multiplied by, if that may be all that was done to it; None otherwise."""
    if new.shape != old.shape:
        return None
    nothing = old == 0
    factor = torch.where(nothing, 1, new / old)
    if not bool(torch.where(nothing, new == 0, factor >= 0).all()):
        return None
    tolerance = torch.finfo(new.dtype).eps ** 0.5
    used = factor[~nothing & (factor > 0)]
    is_scaled = used.numel() == 0 or used.max() <= used.min() * (1 + tolerance)
    return factor if is_scaled or used.max() <= 1 + tolerance else None


def part_of_a_longer_one(seen: Sequence[Unrolled]) -> None:
    """Let sequences of one step be compared with reference sequences as long as all those of their layer together.

    A step that begins with the zero state tells nothing of the kernels that read it, so there are two at least.
    """
    single = Counter(id(unrolled.layer) for unrolled in seen if len(unrolled.x_TBI) == 1)
    for unrolled in seen:
        if len(unrolled.x_TBI) == 1:
            unrolled.reference_steps = max(2, single[id(unrolled.layer)])
