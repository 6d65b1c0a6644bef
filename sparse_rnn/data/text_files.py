"""Text of one's own."""

from pathlib import Path
from typing import Any, Literal

from sparse_rnn.data.text import TextData, matching
from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.data.tokens.tokenization import Characters, Tokenization, Words

Level = Literal["word", "char"]
_LEVELS: dict[str, Tokenization] = {"word": Words(), "char": Characters()}


class TextFiles(TextData):
    """Any UTF-8 text, by words or by characters.

    A word is what stands between white space, and every line ends in a token of its own, ``<eos>``. Characters are
    taken as they are, line feeds too. The vocabulary is that of the training text and ``<unk>``.

    Args:
        train: file of the training text, or a pattern such as ``books/*.txt``, whose files are joined in the order of
            their names.
        val: the same for validation.
        test: the same for the test.
        level: what a token is.
        batch_size: columns of the training text, on each rank.
        bptt: steps of a batch.
        eval_batch_size: columns of the other texts, on all ranks together.
        vocabulary: the words and their ids, ours or torchtext's; by default those of the training text.
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
    ) -> None:
        super().__init__(batch_size, bptt, eval_batch_size, vocabulary)
        self.patterns = {"train": train, "val": val, "test": test}
        self.tokenization = tokenization_of(level)

    def corpus(self) -> Corpus:
        """Find the files.

        Raises:
            DataError: a pattern matches none.
        """
        files = {
            split: matching(pattern, Path(), f"put the text there, or give another path as {split}")
            for split, pattern in self.patterns.items()
        }
        return Corpus(files, self.tokenization, vocabulary=self._given_vocabulary)


def tokenization_of(level: Level) -> Tokenization:
    """Return what divides text into tokens of a level.

    Raises:
        ValueError: there is no such level.
    """
    if level not in _LEVELS:
        raise ValueError(f"level is {level!r}; it must be one of {', '.join(_LEVELS)}.")
    return _LEVELS[level]
