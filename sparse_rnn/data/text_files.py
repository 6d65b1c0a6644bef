"""Text files of the user's own."""

from pathlib import Path
from typing import Any, Literal

from sparse_rnn.data.text import TextData, matching
from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.data.tokens.tokenization import Characters, Tokenization, Words
from sparse_rnn.errors import check_choice

Level = Literal["word", "char"]
_LEVELS: dict[str, Tokenization] = {"word": Words(), "char": Characters()}


class TextFiles(TextData):
    """Any UTF-8 text, divided into words or characters.

    Words are what white space separates, and every line ends in a token of its own, ``<eos>``. Characters are taken as
    they are, line feeds too, but carriage returns are left out, and so is the byte order mark that a file may begin
    with. Unless a vocabulary is given, it consists of the tokens of the training text and ``<unk>``.

    Args:
        train: File of the training text, or a pattern such as ``books/*.txt``, whose files are joined in the order of
            their names.
        val: The same for validation.
        test: The same for the test.
        level: What a token is, ``word`` or ``char``.
        batch_size: Columns of the training text, on each rank.
        bptt: Steps of a batch, through which the gradient flows back.
        eval_batch_size: Columns of the other texts, on all ranks together.
        vocabulary: The words and their ids, ours or torchtext's; by default those of the training text.
        hold_out: Share of the training text, its end, to validate on in place of the validation text, and not to
            train on: for choosing hyperparameters without a look at what results are reported on.
        train_sample: Share of the training text to evaluate beside every validation, as ``train/ppl_sample``; arXiv
            1912.00120 takes 0.01 of large texts. 0 for none.

    Raises:
        UsageError: If the level is unknown, one of the sizes is below 1, or a share is out of range.
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
        train: str | Path,
        val: str | Path,
        test: str | Path,
        level: Level = "word",
        batch_size: int = 64,
        bptt: int = 20,
        eval_batch_size: int = 64,
        vocabulary: Any = None,
        hold_out: float = 0.0,
        train_sample: float = 0.0,
    ) -> None:
        super().__init__(batch_size, bptt, eval_batch_size, vocabulary, hold_out, train_sample)
        self.patterns = {"train": train, "val": val, "test": test}
        self.tokenization = tokenization_of(level)

    def corpus(self) -> Corpus:
        """Find the files.

        Raises:
            DataError: If a pattern matches no file.
        """
        files = {
            split: matching(pattern, Path(), f"put the text there, or give another path as {split}")
            for split, pattern in self.patterns.items()
        }
        return Corpus(files, self.tokenization, vocabulary=self._given_vocabulary)


def tokenization_of(level: Level) -> Tokenization:
    """Find out how to divide text into tokens of a level.

    Args:
        level: What a token is, ``word`` or ``char``.

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
    check_choice("level", level, Level)
    return _LEVELS[level]
