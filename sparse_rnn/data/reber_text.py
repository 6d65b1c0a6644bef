"""Strings of the Reber grammar as running text, for language models."""

from typing import Any

import numpy as np

from sparse_rnn.checks import check_flag, check_seed
from sparse_rnn.data.generated import cached_files
from sparse_rnn.data.grammar import embed, spelled, walks
from sparse_rnn.data.options import described
from sparse_rnn.data.text import TextData
from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.data.tokens.tokenization import Characters

SIZES = {"train": 18_750, "val": 3_125, "test": 3_125}


@described
class ReberText(TextData):
    """Strings of the Reber grammar, one behind the other, of which LanguageModel predicts letter by letter.

    Predicting letters is what a language model does, so this is a data set for one, with its perplexity, carried state
    and generated text, and not an option of :class:`~sparse_rnn.data.ReberStrings`, whose strings have labels. Here all
    are valid, and they are drawn independently of each other and however short, so that the best that can be reached is
    known: a perplexity of 2^(6/8) = 1.682, as six of the eight letters that a string has on average are a choice
    between two; embedded 2^(7/12) = 1.498, and 2^(8/12) = 1.587 for who does not remember the second letter until the
    last but one (:func:`sparse_rnn.data.grammar.best_perplexity`).

    There are 18,750 strings for training, 3,125 for validation and 3,125 for the test. Nothing is downloaded.

    Args:
        embedded: Whether each string stands between two letters that must be the same: BT…TE or BP…PE.
        seed: Decides the strings, at least 0.
        vocabulary: The letters and their ids, ours or torchtext's; by default those of the training text.
        train_sample: Share of the training text to evaluate beside every validation, as ``train/ppl_sample``. 0 for
            none.

    Raises:
        UsageError: If one of the sizes is below 1, the seed is negative, or a share is out of range.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        >>> from sparse_rnn.data import ReberText
        >>> text = ReberText(seed=1).texts()["val"]
        >>> text.count("B"), text.count("EB")
        (3125, 3124)
    """

    def __init__(
        self,
        embedded: bool = False,
        batch_size: int = 64,
        bptt: int = 20,
        eval_batch_size: int = 64,
        seed: int = 0,
        vocabulary: Any = None,
        hold_out: float = 0.0,
        train_sample: float = 0.0,
    ) -> None:
        super().__init__(batch_size, bptt, eval_batch_size, vocabulary, hold_out, train_sample)
        check_seed(seed, least=0)
        check_flag("embedded", embedded)
        self.embedded = embedded
        self._seed = seed

    @property
    def seed(self) -> int:
        """What decides the strings."""
        return self._seed

    def texts(self) -> dict[str, str]:
        """Return the text of each split."""
        rng = np.random.default_rng(self.seed)
        return {split: "".join(self._strings(count, rng)) for split, count in SIZES.items()}

    def corpus(self) -> Corpus:
        """Write the text of each split to a file in the cache, where it is not there yet.

        Raises:
            DataError: If the cache cannot be written.
        """
        return Corpus(cached_files("reber", self.texts()), Characters(), vocabulary=self._given_vocabulary)

    def _strings(self, count: int, rng: np.random.Generator) -> list[str]:
        strings = spelled(walks(count, rng))
        return embed(strings, rng) if self.embedded else strings
