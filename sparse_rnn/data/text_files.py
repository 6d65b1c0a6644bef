"""Text files of the user's own."""

from pathlib import Path
from typing import Any, Literal

from sparse_rnn.data.errors import DataError
from sparse_rnn.data.options import described
from sparse_rnn.data.text import TextData, matching
from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.data.tokens.tokenization import Bytes, Characters, Tokenization, Words
from sparse_rnn.data.tokens.vocabulary import check_min_count, check_size
from sparse_rnn.errors import UsageError, check_choice
from sparse_rnn.paths import check_local

Level = Literal["word", "char", "byte"]
_LEVELS: dict[str, Tokenization] = {"word": Words(), "char": Characters(), "byte": Bytes()}


@described
class TextFiles(TextData):
    """Any UTF-8 text, divided into words, characters, bytes or subwords.

    Words are what white space separates, and every line ends in a token of its own, ``<eos>``. Characters are taken as
    they are, line feeds too, but carriage returns are left out, and so is the byte order mark that a file may begin
    with. Bytes are those of the files, whatever they hold. Unless a vocabulary is given, it consists of the tokens of
    the training text and ``<unk>``, which stands for all others. Words that occur only once are left out of it, so that
    the model meets ``<unk>`` in training and learns what an unknown word costs: see ``min_count``.

    Each text is needed only where it is used: the test of a checkpoint needs ``test`` alone, as the checkpoint has the
    vocabulary and says what a token is.

    Args:
        train: File of the training text, or a pattern such as ``books/*.txt``, whose files are joined in the order of
            their names.
        val: The same for validation.
        test: The same for the test.

    Raises:
        UsageError: If the level is unknown, one of the sizes is below 1, a share is out of range, or two arguments
            contradict each other.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data import TextFiles
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for part in ("one", "two", "three"):
        ...         _ = (Path(name) / f"{part}.txt").write_text(f"part {part} of the text")
        ...     data = TextFiles(train=f"{name}/t*.txt", val=f"{name}/one.txt", test=f"{name}/one.txt", level="char")
        ...     [path.name for path in data.corpus().files["train"]]
        ['three.txt', 'two.txt']
    """

    def __init__(
        self,
        train: str | Path | None = None,
        val: str | Path | None = None,
        test: str | Path | None = None,
        level: Level | None = None,
        batch_size: int = 64,
        bptt: int = 20,
        eval_batch_size: int = 64,
        vocabulary: Any = None,
        hold_out: float = 0.0,
        train_sample: float = 0.0,
        subwords: int | str | Path | None = None,
        vocab_size: int | None = None,
        min_count: int | None = None,
    ) -> None:
        check_settings(level, subwords, vocab_size, min_count)
        super().__init__(
            batch_size, bptt, eval_batch_size, vocabulary, hold_out, train_sample, subwords, level is not None
        )
        self.patterns = {"train": train, "val": val, "test": test}
        for pattern in self.patterns.values():
            check_local(pattern)
        self.tokenization = tokenization_of(level)
        self._words_to_keep = vocab_size
        self._min_count = rare_below(level, vocab_size, min_count)

    def corpus(self) -> Corpus:
        """Find the files.

        Raises:
            DataError: If a pattern matches no file, or there is none.
        """
        files = self.files()
        if not files:
            raise DataError(
                f"{type(self).__name__} has no text: give train, val and test, or those of them that are read."
            )
        return Corpus(files, self.tokenization, self._words_to_keep, self._given_vocabulary, self._min_count)

    def files(self) -> dict[str, list[Path]]:
        """Find the files of the splits that there are.

        Raises:
            DataError: If a pattern matches no file.
        """
        return {
            split: matching(pattern, Path(), f"put the text there, or give another path as {split}")
            for split, pattern in self.patterns.items()
            if pattern is not None
        }


def tokenization_of(level: Level | None) -> Tokenization:
    """Find out how to divide text into tokens of a level.

    Args:
        level: What a token is, ``word``, ``char`` or ``byte``; None stands for ``word``.

    Returns:
        The tokenization.

    Raises:
        UsageError: If there is no such level.

    Example:
        >>> from sparse_rnn.data.text_files import tokenization_of
        >>> list(tokenization_of("word")("a word or two"))
        ['a', 'word', 'or', 'two']
        >>> list(tokenization_of("char")("a word"))
        ['a', ' ', 'w', 'o', 'r', 'd']
    """
    if level is None:
        return _LEVELS["word"]
    check_choice("level", level, Level)
    return _LEVELS[level]


def rare_below(level: Level | None, vocab_size: int | None, min_count: int | None) -> int | None:
    """Decide how often a token must occur in the training text to be in the vocabulary.

    A model that never meets ``<unk>`` in training gives it next to no probability, and each unknown word of another
    text then costs more than all others around it. Words that occur once tell a model next to nothing else. Characters
    are few and not left out, as text is to be put together from them again.

    Args:
        level: What a token is.
        vocab_size: Number of words to keep, where it is given.
        min_count: What the user wants, where it is given.

    Returns:
        The number; None where it is 2 unless the text has ``<unk>`` itself.

    Raises:
        UsageError: If one of the numbers is below 1.

    Example:
        >>> from sparse_rnn.data.text_files import rare_below
        >>> rare_below("word", None, None), rare_below("word", None, 5), rare_below("char", None, None)
        (None, 5, 1)
    """
    check_size(vocab_size)
    check_min_count(min_count)
    leaves_it_to_the_text = min_count is None and vocab_size is None and level in (None, "word")
    return None if leaves_it_to_the_text else min_count or 1


def check_settings(level: Level | None, subwords: object, vocab_size: int | None, min_count: int | None) -> None:
    """Refuse what goes with subwords no more, with a UsageError.

    Example:
        >>> from sparse_rnn.data.text_files import check_settings
        >>> check_settings("char", 8000, None, None)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: level='char' and subwords=8000 contradict each other: give one of them.
    """
    if subwords is None:
        return
    for name, value in (("level", level), ("vocab_size", vocab_size), ("min_count", min_count)):
        if value is not None:
            raise UsageError(f"{name}={value!r} and subwords={subwords!r} contradict each other: give one of them.")
