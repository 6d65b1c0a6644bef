"""Long texts in contiguous columns, read side by side."""

import math
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from sparse_rnn.data.errors import DataError
from sparse_rnn.data.loaders.passes import Batch, ResumableLoader
from sparse_rnn.data.loaders.sentences import SentenceShuffle, ShuffledText

IGNORED = -100  # a target that PyTorch's losses leave out

# Windows that are read from the text at once: few and long reads cost less than many short ones.
READ_AHEAD = 64


class ColumnLoader(ResumableLoader):
    """Cut a text into columns of equal length, and serve a window of them at a time, resumable in mid-epoch.

    Batches are pairs (x, y), int64 [B, T], where y is x one token later: row b of a batch goes on where row b of the
    batch before ended. T is ``bptt``, less in the last batch of an epoch. Every rank owns a contiguous run of columns
    and reads nothing else of the text; all ranks have equally many batches.

    Without ``pad`` the columns are as long as the text allows, and the up to ``columns - 1`` tokens that are left over
    are dropped. With ``pad`` every token but the first is the target of exactly one place, on exactly one rank; the
    places beyond the end of the text have the target -100 and the input 0.

    Args:
        tokens: the text, token ids [n]; of a memory map only what a batch needs is read.
        columns: number of columns, on all ranks together.
        bptt: steps of a batch.
        pad: serve the whole text, with padding, instead of dropping what is left over.
        rank: index of this process among those that share the text.
        world_size: number of those processes.
        sentence_mark: id of the token that separates sentences. Where it is given, a rank draws a new order of the
            sentences of its own share in every epoch, see :class:`SentenceShuffle`.
        seed: decides the orders of the sentences, together with rank and epoch.

    Raises:
        ValueError: there are fewer columns than ranks.
        DataError: the text is too short for so many columns.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        columns: int,
        bptt: int,
        *,
        pad: bool = False,
        rank: int = 0,
        world_size: int = 1,
        sentence_mark: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if columns < world_size:
            raise ValueError(
                f"{columns} columns do not go round {world_size} ranks: give every rank one at least"
                " (eval_batch_size counts the columns of all ranks)."
            )
        targets = len(tokens) - 1
        if targets < columns:
            raise DataError(
                f"A text of {len(tokens)} tokens is too short for {columns} columns: lower batch_size, of which every"
                " rank has its own, or eval_batch_size, or take a longer text."
            )
        self.bptt = bptt
        self.column_length = math.ceil(targets / columns) if pad else targets // columns
        first, last = (columns * number // world_size for number in (rank, rank + 1))
        self.columns = last - first
        # The last target of a column is the first input of the next one.
        share = tokens[first * self.column_length : last * self.column_length + 1]
        self._text = np.asarray(share)  # slicing a memmap anew costs more than reading it
        self._shuffle = None if sentence_mark is None else SentenceShuffle(self._text, sentence_mark, (seed, rank))
        if self._shuffle is not None:
            # Lightning looks for `set_epoch` here; it would want to replace a sampler held as `self.sampler`.
            self.batch_sampler = SimpleNamespace(sampler=self._shuffle)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return math.ceil(self.column_length / self.bptt)

    def batches(self, start: int) -> Iterator[Batch]:
        """Yield the batches of the epoch from number ``start`` on."""
        text = self._text if self._shuffle is None else self._shuffle.draw()
        ahead = READ_AHEAD * self.bptt
        for at in range(start * self.bptt, self.column_length, ahead):
            block_BT = self._read(text, at, min(at + ahead, self.column_length))
            x_BT, y_BT = block_BT[:, :-1], block_BT[:, 1:]
            for x, y in zip(x_BT.split(self.bptt, dim=1), y_BT.split(self.bptt, dim=1), strict=True):
                yield x.clamp(min=0), y.contiguous()

    def _read(self, text: np.ndarray | ShuffledText, start: int, stop: int) -> Tensor:
        """Read steps ``start`` … ``stop`` (that one included) of every column: int64 [B, stop - start + 1]."""
        block_BT = np.full((self.columns, stop - start + 1), IGNORED)
        for column, row in enumerate(block_BT):
            begin = column * self.column_length
            found = text[begin + start : begin + stop + 1]
            row[: len(found)] = found
        return torch.from_numpy(block_BT)
