"""Sequences of different lengths: packed as PyTorch packs them, or as a batch aligned at the first or the last step.

T is the greatest length, ``lengths`` [B] an int64 tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


def unpack(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """Return the sequences [T, B, I] in the order they were packed in, aligned at the first step, and their lengths."""
    x_TBI, lengths = pad_packed_sequence(packed)
    return x_TBI, lengths.to(x_TBI.device)


def pack_like(packed: PackedSequence, x_TBH: Tensor, lengths: Tensor) -> PackedSequence:
    """Pack sequences aligned at the first step in the manner of another packed batch of the same lengths."""
    order = packed.sorted_indices
    if order is not None:
        x_TBH, lengths = x_TBH.index_select(1, order), lengths.index_select(0, order)
    data = pack_padded_sequence(x_TBH, lengths.cpu()).data
    return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)


def align_last(x_TBI: Tensor, lengths: Tensor) -> Tensor:
    """Move sequences that begin together so that they end together; what is before a sequence has no meaning."""
    return _shift(x_TBI, lengths - len(x_TBI))


def align_first(x_TBI: Tensor, lengths: Tensor) -> Tensor:
    """Move sequences that end together so that they begin together; what is behind a sequence has no meaning."""
    return _shift(x_TBI, len(x_TBI) - lengths)


def _shift(x_TBI: Tensor, earlier: Tensor) -> Tensor:
    steps = torch.arange(len(x_TBI), device=x_TBI.device)
    source_TB = (steps.unsqueeze(1) + earlier).clamp(0, len(x_TBI) - 1)
    return x_TBI.gather(0, source_TB.unsqueeze(-1).expand_as(x_TBI))


def reading_order(x_TBI: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
    """Put sequences that begin together into the order in which a layer reads them: all readings end together."""
    if reverse:
        return x_TBI.flip(0)
    return x_TBI if lengths is None else align_last(x_TBI, lengths)


def sequence_order(x_TBH: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
    """Take outputs in reading order back to the order of the sequences, which begin together."""
    if reverse:
        return x_TBH.flip(0)
    return x_TBH if lengths is None else align_first(x_TBH, lengths)


def running(steps: int, lengths: Tensor) -> Tensor:
    """Which sequences, aligned at the last step, have begun: [T, B, 1], boolean."""
    order = torch.arange(steps, device=lengths.device).unsqueeze(1)
    return (order >= steps - lengths).unsqueeze(-1)
