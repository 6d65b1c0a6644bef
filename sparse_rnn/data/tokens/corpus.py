"""The text files and settings that a token store is made of."""

import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparse_rnn.data.errors import DataError
from sparse_rnn.data.tokens.encoding import mark_bytes
from sparse_rnn.data.tokens.tokenization import Tokenization, Words
from sparse_rnn.data.tokens.vocabulary import UNKNOWN, Vocabulary, check_min_count, check_size
from sparse_rnn.errors import UsageError

TRAIN = "train"


@dataclass(frozen=True)
class Corpus:
    """Text files, and how they become ids.

    Args:
        files: The UTF-8 files of each split, in their order. Ids without ``vocabulary`` need a split ``train``.
        tokenization: What divides text into tokens.
        vocab_size: Number of words of the training split to keep: see :meth:`Vocabulary.from_counts`; by default all.
        vocabulary: The words and their ids, where they are not to be those of the training split.
        min_count: How often a word of the training split must occur to be kept. None takes 2 where the split has no
            ``<unk>`` of its own, so that there are words to learn it from, and else 1.

    Raises:
        UsageError: If arguments contradict each other, or ``vocab_size`` or ``min_count`` is below 1.
        DataError: If a split has no file.

    Example:
        >>> from pathlib import Path
        >>> from sparse_rnn.data.tokens import Corpus, Words
        >>> corpus = Corpus({"train": [Path("part-1.txt"), Path("part-2.txt")]}, Words(end_of_line="<S>"))
        >>> corpus.tokenization
        Words(end_of_line='<S>')
    """

    files: Mapping[str, Sequence[Path]]
    tokenization: Tokenization = Words()  # noqa: RUF009 (immutable)
    vocab_size: int | None = None
    vocabulary: Vocabulary | None = None
    min_count: int | None = 1

    def __post_init__(self) -> None:
        if self.vocabulary is not None and self.vocab_size is not None:
            raise UsageError("Give a vocabulary or a vocab_size, not both.")
        check_size(self.vocab_size)
        check_min_count(self.min_count)
        if empty := [split for split, paths in self.files.items() if not paths]:
            raise DataError(f"The split {empty[0]!r} has no file: give at least one.")

    def digest(self) -> str:
        """Return a short name that no other text and no other settings have.

        It depends on the path, size and time of change of each file, as reading the files would take long.

        Raises:
            DataError: If a file is missing or empty, or begins with the mark of another encoding than UTF-8, and is not
                read as bytes.
        """
        is_raw = getattr(self.tokenization, "raw", False)  # a tokenization of the user's need not say so
        files = {split: [_identity(path, is_raw) for path in paths] for split, paths in self.files.items()}
        words = None if self.vocabulary is None else (self.vocabulary.get_itos(), self.vocabulary.get_default_index())
        settings = [files, repr(self.tokenization), self.vocab_size, words]
        if self.min_count != 1:  # stores of before there was one are found by the rest
            settings.append(self.min_count)
        parts = json.dumps(settings)
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def words_of(self, counts: Mapping[str, int]) -> Vocabulary:
        """Make the vocabulary of the training split.

        Args:
            counts: How often each of its words occurs.

        Example:
            >>> from pathlib import Path
            >>> from sparse_rnn.data.tokens import Corpus
            >>> corpus = Corpus({"train": [Path("novel.txt")]}, min_count=None)
            >>> corpus.words_of({"the": 9, "cat": 1}).get_itos(), corpus.words_of({"the": 9, "<unk>": 1}).get_itos()
            (['the', '<unk>'], ['the', '<unk>'])
        """
        if symbols := getattr(self.tokenization, "symbols", None):
            # All of them, in the order of their frequency: other texts may have those that this one has not.
            return Vocabulary.from_counts({symbol: counts.get(symbol, 0) + 1 for symbol in symbols})
        rare = 1 if UNKNOWN in counts else 2
        return Vocabulary.from_counts(counts, self.vocab_size, self.min_count or rare)


def _identity(path: Path, is_raw: bool) -> tuple[str, int, int]:
    """Name a text; a byte order mark is no part of its size, so that stores that have it as text are not found."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is no file: give the path of a text file.")
        size = status.st_size - (0 if is_raw else mark_bytes(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): put the text there, or give its path.") from None
    if size == 0:
        raise DataError(f"{path} is empty: put the text there, or leave the file out.")
    return str(path.resolve()), size, status.st_mtime_ns
