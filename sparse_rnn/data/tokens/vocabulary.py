"""Words and their ids."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparse_rnn.checks import check_whole
from sparse_rnn.data.errors import DataError, UnknownIdError

UNKNOWN = "<unk>"


class Vocabulary:
    """Words by id and ids by word, with the method names of ``torchtext.vocab.Vocab``.

    Args:
        words: Word of each id, none twice.
        default_index: Id of every other word; None makes looking up another word an error.

    Raises:
        DataError: If a word is there twice, or no word has the default index.

    Example:
        >>> from sparse_rnn.data import Vocabulary
        >>> vocabulary = Vocabulary(["the", "cat", "<unk>"], default_index=2)
        >>> vocabulary(["the", "dog"])
        [0, 2]
        >>> vocabulary.lookup_tokens([1, 0])
        ['cat', 'the']
    """

    def __init__(self, words: Iterable[str], default_index: int | None = None) -> None:
        self._words = list(words)
        self._ids = {word: index for index, word in enumerate(self._words)}
        if len(self._ids) < len(self._words):
            twice = next(word for index, word in enumerate(self._words) if self._ids[word] != index)
            raise DataError(f"The word {twice!r} stands twice in the vocabulary: every word can have one id only.")
        check_whole("default_index", default_index, optional=True)
        self.set_default_index(default_index)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], vocab_size: int | None = None, min_count: int = 1) -> "Vocabulary":
        """Make a vocabulary of counted words, ordered by falling frequency, and equally frequent ones by the alphabet.

        The word ``<unk>`` is always there, and stands for every word that is not. Its own frequency is how often it
        occurs in the text, plus how often those words do that are left out.

        Args:
            counts: How often each word occurs.
            vocab_size: Number of words to keep, ``<unk>`` included; by default all.
            min_count: How often a word must occur to be kept.

        Raises:
            UsageError: If ``vocab_size`` or ``min_count`` is below 1.

        Example:
            >>> from sparse_rnn.data import Vocabulary
            >>> Vocabulary.from_counts({"a": 9, "cat": 3, "sat": 2, "mat": 2}, vocab_size=3).get_itos()
            ['a', '<unk>', 'cat']
        """
        check_size(vocab_size)
        check_min_count(min_count)
        words = sorted(counts.keys() - {UNKNOWN}, key=lambda word: (-counts[word], word))
        kept = [word for word in words if counts[word] >= min_count][: None if vocab_size is None else vocab_size - 1]
        unknown = counts.get(UNKNOWN, 0) + sum(counts[word] for word in words[len(kept) :])
        above = sum((-counts[word], word) < (-unknown, UNKNOWN) for word in kept)
        return cls([*kept[:above], UNKNOWN, *kept[above:]], default_index=above)

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self._words)

    def __contains__(self, token: object) -> bool:
        """Return whether a word has an id of its own."""
        return token in self._ids

    def __getitem__(self, token: str) -> int:
        """Return the id of a word, or the default index where the word has no id of its own.

        Raises:
            DataError: If the word has no id and there is no default.
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
            UnknownIdError: If no word has that id; it is an ``IndexError`` too.
        """
        if not 0 <= index < len(self):
            raise UnknownIdError(f"The id {index} is out of range: those of this vocabulary are 0 … {len(self) - 1}.")
        return self._words[index]

    def lookup_tokens(self, indices: Iterable[int]) -> list[str]:
        """Return the words of ids."""
        return [self.lookup_token(index) for index in indices]

    def get_itos(self) -> list[str]:
        """Return the words in a list, ordered by id."""
        return list(self._words)

    def get_stoi(self) -> dict[str, int]:
        """Return the ids in a dictionary, by word."""
        return dict(self._ids)

    def set_default_index(self, index: int | None) -> None:
        """Set the id of every word that has none of its own; None makes looking up such a word an error.

        Raises:
            DataError: If no word has that id.
        """
        if index is not None and not 0 <= index < len(self):
            raise DataError(f"The default index {index} is no id of this vocabulary: give one of 0 … {len(self) - 1}.")
        self._default_index = index

    def get_default_index(self) -> int | None:
        """Return the id of every word that has none of its own, or None."""
        return self._default_index


def as_vocabulary(vocabulary: Any) -> Vocabulary:
    """Turn a vocabulary of torchtext into a :class:`Vocabulary` with the same ids and default index.

    The sampled and the adaptive softmax need words ordered by falling frequency. torchtext orders them so, after its
    special tokens.

    Args:
        vocabulary: A ``torchtext.vocab.Vocab`` of version 0.9 or later, or an older one, which has ``itos``; a
            :class:`Vocabulary` is returned as it is.

    Returns:
        The vocabulary.

    Raises:
        DataError: If it is none of these.

    Example:
        >>> from types import SimpleNamespace
        >>> from sparse_rnn.data.tokens import as_vocabulary
        >>> old_torchtext = SimpleNamespace(itos=["<unk>", "the", "cat"], unk_index=0)
        >>> as_vocabulary(old_torchtext)(["cat", "dog"])
        [2, 0]
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


def check_size(vocab_size: int | None) -> None:
    """Refuse a number of words to keep that is below 1.

    Args:
        vocab_size: The number; None stands for all words.

    Raises:
        UsageError: If it is below 1.

    Example:
        >>> from sparse_rnn.data.tokens.vocabulary import check_size
        >>> check_size(0)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: vocab_size=0: give the number of words to keep, a whole number of at least 1, or
        null.
    """
    check_whole("vocab_size", vocab_size, 1, wanted="the number of words to keep", optional=True)


def check_min_count(min_count: int | None) -> None:
    """Refuse a number of times that a word must occur that is below 1.

    Args:
        min_count: The number; None leaves it to the text.

    Raises:
        UsageError: If it is below 1.

    Example:
        >>> from sparse_rnn.data.tokens.vocabulary import check_min_count
        >>> check_min_count(0)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: min_count=0: give how often a word must occur to be kept, a whole number ...
    """
    check_whole("min_count", min_count, 1, wanted="how often a word must occur to be kept", optional=True)
