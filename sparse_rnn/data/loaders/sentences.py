"""Whole sentences of a text in an order that only the seed and the epoch decide."""

import numpy as np

# Tokens looked at together in search of the ends of sentences.
CHUNK = 1 << 22


class SentenceShuffle:
    """Show a text with its sentences in a new order each epoch; nothing of it is copied.

    A sentence runs from one mark to the next. What lies before the first mark and after the last, in the share of a
    rank the pieces of sentences that were cut, stays where it is. So an epoch has every token exactly once.

    Memory: 24 bytes a sentence, 48 while an order is drawn; that is 0.7 and 1.5 GB for the 30 million sentences of One
    Billion Words on a single rank, and an eighth of it on eight.

    Args:
        tokens: the text, token ids [n].
        mark: id of the token that separates sentences.
        seed: integers that decide the orders, together with the epoch.
    """

    def __init__(self, tokens: np.ndarray, mark: int, seed: tuple[int, ...]) -> None:
        self._tokens = tokens
        self._mark = mark
        self._seed = seed
        self._epoch = 0
        self._cuts: np.ndarray | None = None

    def set_epoch(self, epoch: int) -> None:
        """Let orders drawn from now on be those of ``epoch``."""
        self._epoch = epoch

    def draw(self) -> "ShuffledText":
        """Draw the order of the epoch."""
        if self._cuts is None:
            self._cuts = self._find_cuts()
        return ShuffledText(self._tokens, self._cuts, self._order(len(self._cuts) - 1))

    def _find_cuts(self) -> np.ndarray:
        """Where pieces begin, and the end of the text: int64 [pieces + 1]."""
        size = len(self._tokens)
        marks = [np.flatnonzero(self._tokens[at : at + CHUNK] == self._mark) + at for at in range(0, size, CHUNK)]
        return np.concatenate([[0], *marks, [size]])

    def _order(self, pieces: int) -> np.ndarray:
        """A permutation of the pieces that leaves the first and the last alone."""
        order = np.arange(pieces)
        np.random.default_rng((*self._seed, self._epoch)).shuffle(order[1:-1])
        return order


class ShuffledText:
    """A text whose pieces follow each other in another order, read by slices.

    Args:
        tokens: the text, token ids [n].
        cuts: where its pieces begin, and n: int64 [pieces + 1].
        order: the pieces in their new order: int64 [pieces].
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
