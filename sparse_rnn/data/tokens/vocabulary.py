"""Words and their ids."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparse_rnn.data.errors import DataError

UNKNOWN = "<unk>"


class Vocabulary:
    """Words by id and ids by word, under the names of ``torchtext.vocab.Vocab``.

    Args:
        words: word of each id, none twice.
        default_index: id of every other word; None makes looking one up an error.

    Raises:
        DataError: a word stands twice, or the default index is no id.
    """

    def __init__(self, words: Iterable[str], default_index: int | None = None) -> None:
        self._words = list(words)
        self._ids = {word: index for index, word in enumerate(self._words)}
        if len(self._ids) < len(self._words):
            twice = next(word for index, word in enumerate(self._words) if self._ids[word] != index)
            raise DataError(f"The word {twice!r} stands twice in the vocabulary: every word can have one id only.")
        self.set_default_index(default_index)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], vocab_size: int | None = None) -> "Vocabulary":
        """Order words by falling frequency, ties by word; whatever is not among them is ``<unk>``, the default.

        ``<unk>`` is always there, as text that the counts were not taken from may need it. It is ranked like any other
        word, by how often it stands in the text plus how often those words do that ``vocab_size`` leaves out.

        Args:
            counts: how often each word occurs.
            vocab_size: words to keep, ``<unk>`` included; by default all.

        Raises:
            ValueError: if ``vocab_size`` is below 1.
        """
        if vocab_size is not None and vocab_size < 1:
            raise ValueError(f"vocab_size={vocab_size}: give the number of words to keep, at least 1.")
        words = sorted(counts.keys() - {UNKNOWN}, key=lambda word: (-counts[word], word))
        kept = words if vocab_size is None else words[: vocab_size - 1]
        unknown = counts.get(UNKNOWN, 0) + sum(counts[word] for word in words[len(kept) :])
        above = sum((-counts[word], word) < (-unknown, UNKNOWN) for word in kept)
        return cls([*kept[:above], UNKNOWN, *kept[above:]], default_index=above)

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self._words)

    def __contains__(self, token: object) -> bool:
        """Say whether the word has an id of its own."""
        return token in self._ids

    def __getitem__(self, token: str) -> int:
        """Return the id of a word, that of the default where it has none.

        Raises:
            DataError: the word has no id and there is no default.
        """
        index = self._ids.get(token, self._default_index)
        if index is None:
            raise DataError(
                f"The word {token!r} is not in the vocabulary of {len(self):,} words, which has no default index: set"
                " one with set_default_index, or build the vocabulary from text that has the word."
            )
        return index

    def __call__(self, tokens: Iterable[str]) -> list[int]:
        """Return the ids of words, as :meth:`lookup_indices` does."""
        return self.lookup_indices(tokens)

    def lookup_indices(self, tokens: Iterable[str]) -> list[int]:
        """Return the ids of words."""
        return [self[token] for token in tokens]

    def lookup_token(self, index: int) -> str:
        """Return the word of an id.

        Raises:
            IndexError: no word has that id.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"The id {index} is out of range: those of this vocabulary are 0 … {len(self) - 1}.")
        return self._words[index]

    def lookup_tokens(self, indices: Iterable[int]) -> list[str]:
        """Return the words of ids."""
        return [self.lookup_token(index) for index in indices]

    def get_itos(self) -> list[str]:
        """Return a list of the words by id."""
        return list(self._words)

    def get_stoi(self) -> dict[str, int]:
        """Return a dictionary of the ids by word."""
        return dict(self._ids)

    def set_default_index(self, index: int | None) -> None:
        """Set the id that words without an id of their own have; None makes looking one up an error.

        Raises:
            DataError: no word has that id.
        """
        if index is not None and not 0 <= index < len(self):
            raise DataError(f"The default index {index} is no id of this vocabulary: give one of 0 … {len(self) - 1}.")
        self._default_index = index

    def get_default_index(self) -> int | None:
        """Return the id that words without an id of their own have."""
        return self._default_index


def as_vocabulary(vocabulary: Any) -> Vocabulary:
    """Turn a vocabulary of torchtext into ours; ids and default stay as they are.

    Sampled and adaptive softmax want ids by falling frequency. torchtext gives them so after its special tokens.

    Args:
        vocabulary: ours, which is returned as it is, a ``torchtext.vocab.Vocab`` of 0.9 and later, or an older one,
            which has ``itos``.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(vocabulary, Vocabulary):
        return vocabulary
    if hasattr(vocabulary, "get_itos"):
        return Vocabulary(vocabulary.get_itos(), vocabulary.get_default_index())
    words: Sequence[str] | None = getattr(vocabulary, "itos", None)
    if words is None:
        raise DataError(
            f"A {type(vocabulary).__name__} is no vocabulary: give a sparse_rnn.data.Vocabulary, or a"
            " torchtext.vocab.Vocab."
        )
    return Vocabulary(words, getattr(vocabulary, "unk_index", None))
