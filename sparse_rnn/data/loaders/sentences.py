"""Sentences of a text in an order that depends on the seed and the epoch alone."""

import numpy as np

from sparse_rnn.checks import check_seed, check_whole, items_of

# Tokens looked at together in search of the ends of sentences.
CHUNK = 1 << 22


class SentenceShuffle:
    """Shows a text with its sentences in a new order in each epoch, without copying the text.

    A sentence begins at a mark and ends before the next one. What lies before the first mark and after the last one
    stays in its place: in the share of a rank, these may be parts of sentences. So every token comes exactly once in
    an epoch.

    This needs 24 bytes of memory for each sentence, and 48 while an order is drawn: for the 30 million sentences of the
    One Billion Word benchmark 0.7 and 1.5 GB on a single rank, and an eighth of that on each of eight ranks.

    Args:
        tokens: The text, token ids [n].
        mark: Id of the token that separates sentences.
        seed: Integers that decide the orders, together with the epoch.

    Raises:
        UsageError: If an integer of the seed is negative.

    Example:
        >>> import numpy as np
        >>> from sparse_rnn.data.loaders import SentenceShuffle
        >>> text = np.array([0, 11, 0, 21, 22, 0, 31, 32, 33, 0])  # 0 marks where a sentence begins
        >>> shuffle = SentenceShuffle(text, mark=0, seed=(1,))
        >>> shuffle.set_epoch(1)
        >>> shuffle.draw()[:].tolist()
        [0, 31, 32, 33, 0, 11, 0, 21, 22, 0]
    """

    def __init__(self, tokens: np.ndarray, mark: int, seed: tuple[int, ...]) -> None:
        check_whole("mark", mark)
        for integer in items_of("seed", seed):
            check_seed(integer, least=0)
        self._tokens = tokens
        self._mark = mark
        self._seed = seed
        self._epoch = 0
        self._cuts: np.ndarray | None = None

    def set_epoch(self, epoch: int) -> None:
        """Let the orders that are drawn from now on be those of ``epoch``."""
        self._epoch = epoch

    def draw(self) -> "ShuffledText":
        """Draw the order of the epoch, and return the text in that order."""
        if self._cuts is None:
            self._cuts = self._find_cuts()
        return ShuffledText(self._tokens, self._cuts, self._order(len(self._cuts) - 1))

    def _find_cuts(self) -> np.ndarray:
        """Find where pieces begin, and the end of the text: int64 [pieces + 1]."""
        size = len(self._tokens)
        marks = [np.flatnonzero(self._tokens[at : at + CHUNK] == self._mark) + at for at in range(0, size, CHUNK)]
        return np.concatenate([[0], *marks, [size]])

    def _order(self, pieces: int) -> np.ndarray:
        """Draw a permutation of the pieces that leaves the first and the last in their places."""
        order = np.arange(pieces)
        np.random.default_rng((*self._seed, self._epoch)).shuffle(order[1:-1])
        return order


class ShuffledText:
    """A text whose pieces follow each other in another order; slices of it are read when they are asked for.

    Args:
        tokens: The text, token ids [n].
        cuts: Where its pieces begin, and n at the end: int64 [pieces + 1].
        order: Numbers of the pieces in their new order: int64 [pieces].

    Example:
        >>> import numpy as np
        >>> from sparse_rnn.data.loaders import ShuffledText
        >>> text = ShuffledText(np.array([10, 20, 21, 30]), cuts=np.array([0, 1, 3, 4]), order=np.array([2, 0, 1]))
        >>> len(text), text[:].tolist(), text[1:3].tolist()
        (4, [30, 10, 20, 21], [10, 20])
    """

    def __init__(self, tokens: np.ndarray, cuts: np.ndarray, order: np.ndarray) -> None:
        lengths = np.diff(cuts)[order]
        self._tokens = tokens
        self._ends = lengths.cumsum()
        # A token's place in the text is its place here plus the shift of its piece.
        self._shifts = cuts[:-1][order] - (self._ends - lengths)

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self._tokens)

    def __getitem__(self, part: slice) -> np.ndarray:
        """Return the tokens of a slice without a step."""
        start, stop, _ = part.indices(len(self))
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        ends = self._ends[first : last + 1].clip(max=stop)
        places = np.arange(start, stop) + np.repeat(self._shifts[first : last + 1], np.diff(ends, prepend=start))
        return self._tokens[places]
