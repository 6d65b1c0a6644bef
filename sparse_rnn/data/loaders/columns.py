"""Long texts, cut into columns that are read side by side."""

import math
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from sparse_rnn.checks import check_flag, check_seed, check_whole
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.loaders.passes import Batch, ResumableLoader
from sparse_rnn.data.loaders.sentences import SentenceShuffle, ShuffledText
from sparse_rnn.errors import UsageError

IGNORED = -100  # a target that PyTorch's losses leave out

# Windows that are read from the text at once: few and long reads cost less than many short ones.
READ_AHEAD = 64


class ColumnLoader(ResumableLoader):
    """Windows of a text that is cut into columns of equal length, which can be resumed in the middle of an epoch.

    Batches are pairs (x, y), int64 [B, T], where y is x one token later. Each row of a batch is a part of one column,
    and goes on where the same row of the batch before ended. T is ``bptt``, less in the last batch of an epoch. Every
    rank owns neighbouring columns and reads nothing else of the text; all ranks have equally many batches.

    Without ``pad`` the columns are as long as the text allows, and the up to ``columns - 1`` tokens that are left over
    are dropped. With ``pad`` every token but the first is a target exactly once, on exactly one rank; the places beyond
    the end of the text have the target -100 and the input 0.

    Args:
        tokens: The text, token ids [n]; of a memory map, only what the batches need is read.
        columns: Number of columns, on all ranks together.
        bptt: Steps of a batch.
        pad: Whether to give the whole text, with padding, instead of dropping what is left over.
        rank: Index of this process among those that share the text.
        world_size: Number of those processes.
        sentence_mark: Id of the token that separates sentences. Where it is given, a rank draws a new order of the
            sentences of its own share in every epoch: see :class:`SentenceShuffle`.
        seed: Decides the orders of the sentences, together with rank and epoch.

    Raises:
        UsageError: If there are fewer columns than ranks, or a window has no step.
        DataError: If the text is too short for so many columns.

    Example:
        >>> import numpy as np
        >>> from sparse_rnn.data import ColumnLoader
        >>> for x, y in ColumnLoader(np.arange(11), columns=2, bptt=3):
        ...     print(x.tolist(), y.tolist())
        [[0, 1, 2], [5, 6, 7]] [[1, 2, 3], [6, 7, 8]]
        [[3, 4], [8, 9]] [[4, 5], [9, 10]]
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
        check_whole("columns", columns, 1)
        check_flag("pad", pad)
        check_whole("world_size", world_size, 1)
        check_whole("rank", rank, 0, world_size - 1)
        check_whole("sentence_mark", sentence_mark, optional=True)
        check_seed(seed, least=0)
        own = rows_of_rank(columns, rank, world_size)
        check_whole("bptt", bptt, 1, wanted="the number of steps in a batch")
        targets = len(tokens) - 1
        if targets < columns:
            raise DataError(
                f"A text of {len(tokens)} tokens is too short for {columns} columns: lower batch_size, of which every"
                " rank has its own, or eval_batch_size, or take a longer text."
            )
        self.bptt = bptt
        self.column_length = math.ceil(targets / columns) if pad else targets // columns
        self.columns = own.stop - own.start
        self._first = own.start * self.column_length
        # The last target of a column is the first input of the next one.
        share = tokens[own.start * self.column_length : own.stop * self.column_length + 1]
        self._text = np.asarray(share)  # slicing a memmap anew costs more than reading it
        self._shuffle = None if sentence_mark is None else SentenceShuffle(self._text, sentence_mark, (seed, rank))
        if self._shuffle is not None:
            # Lightning looks for `set_epoch` here; it would want to replace a sampler held as `self.sampler`.
            self.batch_sampler = SimpleNamespace(sampler=self._shuffle)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return math.ceil(self.column_length / self.bptt)

    def places(self, batch_idx: int) -> Tensor:
        """Say which tokens of the text the targets of a batch are, counted from 0, where sentences are not shuffled.

        Returns:
            Places, int64 [B, T]; those of padding lie beyond the end of the text.
        """
        steps = range(batch_idx * self.bptt, min((batch_idx + 1) * self.bptt, self.column_length))
        return self._first + self.column_length * torch.arange(self.columns)[:, None] + torch.tensor(steps) + 1

    def batches(self, start: int) -> Iterator[Batch]:
        """Yield the batches of the epoch, from number ``start`` on."""
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


def rows_of_rank(rows: int, rank: int, world_size: int) -> slice:
    """Say which rows of a batch a rank has, where all ranks share the batch.

    Raises:
        UsageError: If there are fewer rows than ranks.

    Example:
        >>> from sparse_rnn.data.loaders.columns import rows_of_rank
        >>> rows_of_rank(5, 0, 2), rows_of_rank(5, 1, 2)
        (slice(0, 2, None), slice(2, 5, None))
    """
    if rows < world_size:
        raise UsageError(
            f"{rows} columns do not go round {world_size} ranks: give every rank one at least"
            " (eval_batch_size counts the columns of all ranks)."
        )
    return slice(rows * rank // world_size, rows * (rank + 1) // world_size)
