"""A sample of a text, in windows that have nothing to do with each other."""

import math
from collections.abc import Iterator

import numpy as np
import torch

from sparse_rnn.checks import check_number, check_whole
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.loaders.columns import IGNORED, rows_of_rank
from sparse_rnn.data.loaders.passes import Batch

# One for all runs: they are compared on the same windows, as they are on the same validation text.
SEED = 0


class WindowLoader:
    """Some of the windows that a text is cut into, drawn at random once, the same ones in every pass and every run.

    Batches are pairs (x, y), int64 [B, T], where y is x one token later. Rows are in the order of the text, but none
    goes on where another ended, so that a network must start each from its zero state. T is ``bptt``. The last window
    of the text may be shorter; the places beyond its end have the target -100 and the input 0. So have further rows of
    the last batch, as every rank has equally many batches, and in each of them as many rows.

    Args:
        tokens: The text, token ids [n]; of a memory map, only what the batches need is read.
        share: Share of the windows, above 0; one window at least. With 1 every token but the first is a target once.
        rows: Number of windows in a batch, on all ranks together.
        bptt: Steps of a window.
        rank: Index of this process among those that share the sample.
        world_size: Number of those processes.

    Raises:
        UsageError: If there are fewer rows than ranks.
        DataError: If the text has no second token, so that there is nothing to predict.

    Example:
        >>> import numpy as np
        >>> from sparse_rnn.data.loaders import WindowLoader
        >>> [(x, y)] = WindowLoader(np.arange(100), share=0.1, rows=3, bptt=5)  # two of 20 windows
        >>> x.shape, (y - x)[0].tolist(), y[2].tolist()
        (torch.Size([3, 5]), [1, 1, 1, 1, 1], [-100, -100, -100, -100, -100])
    """

    def __init__(
        self, tokens: np.ndarray, share: float, rows: int, bptt: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        check_number("share", share, "[0, 1]")
        check_whole("rows", rows, 1)
        check_whole("bptt", bptt, 1)
        check_whole("world_size", world_size, 1)
        check_whole("rank", rank, 0, world_size - 1)
        if len(tokens) < 2:
            raise DataError("A text of one token has nothing to predict: take a longer one.")
        self.bptt = bptt
        self._text = np.asarray(tokens)  # slicing a memmap anew costs more than reading it
        count = math.ceil((len(tokens) - 1) / bptt)
        drawn = np.random.default_rng(SEED).choice(count, max(1, round(share * count)), replace=False, shuffle=False)
        drawn.sort()  # reads go forward
        filled = np.full(math.ceil(len(drawn) / rows) * rows, count)  # that window lies beyond the end of the text
        filled[: len(drawn)] = drawn
        self._windows = filled.reshape(-1, rows)[:, rows_of_rank(rows, rank, world_size)]

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._windows)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, each time the same ones."""
        last = len(self._text) - 1
        for windows_B in self._windows:
            places_BT = windows_B[:, None] * self.bptt + np.arange(self.bptt + 1)
            block_BT = torch.from_numpy(np.where(places_BT <= last, self._text[places_BT.clip(max=last)], IGNORED))
            yield block_BT[:, :-1].clamp(min=0).long(), block_BT[:, 1:].long().contiguous()


def check_share(train_sample: float) -> None:
    """Refuse what is no share, with a UsageError.

    Example:
        >>> check_share(1.5)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: train_sample=1.5: give the share of the training text to evaluate, a number
        in [0, 1].
    """
    check_number("train_sample", train_sample, "[0, 1]", "the share of the training text to evaluate")
