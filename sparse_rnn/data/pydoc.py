"""English text that comes with Python."""

from pathlib import Path
from typing import Any

from sparse_rnn.data.errors import DataError
from sparse_rnn.data.generated import cached_files
from sparse_rnn.data.options import described
from sparse_rnn.data.text import TextData
from sparse_rnn.data.text_files import Level, check_settings, rare_below, tokenization_of
from sparse_rnn.data.tokens.corpus import Corpus

# Of ten topics in alphabetical order, the first validates and the sixth tests.
_VAL, _TEST, _OF = 0, 5, 10


@described
class PydocTopics(TextData):
    """The language reference that ``help()`` shows, from Python's own ``pydoc_data.topics``; nothing is downloaded.

    It has about 65,000 words in 80 topics. Of ten topics, eight are for training, one for validation and one for the
    test. The text differs from one version of Python to the next, so that only results of the same version can be
    compared.

    Args:
        level: What a token is, ``word``, ``char`` or ``byte``; by default as in the checkpoint that is evaluated, and
            in training ``word``; see :class:`~sparse_rnn.data.TextFiles`.
        min_count: How often a word must occur in the training text to be kept. Null takes 2 for words, unless a
            ``vocab_size`` leaves some out, so that ``<unk>`` is trained, and else 1.

    Raises:
        UsageError: If the level is unknown, one of the sizes is below 1, or a share is out of range.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        >>> from sparse_rnn.data import PydocTopics
        >>> data = PydocTopics(level="char", bptt=100)
        >>> list(data.tokenization("if x:"))
        ['i', 'f', ' ', 'x', ':']
    """

    def __init__(
        self,
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
        self.tokenization = tokenization_of(level)
        self._words_to_keep = vocab_size
        self._min_count = rare_below(level, vocab_size, min_count)

    def corpus(self) -> Corpus:
        """Write the topics of each split to a file in the cache, where they are not there yet.

        Raises:
            DataError: If this Python has no topics, or the cache cannot be written.
        """
        files = cached_files("pydoc", divide_topics(_topics()))
        return Corpus(files, self.tokenization, self._words_to_keep, self._given_vocabulary, self._min_count)


def divide_topics(topics: dict[str, str]) -> dict[str, str]:
    """Divide topics into splits, and join the topics of each split.

    Args:
        topics: Text of each topic. A text that has several names counts once, under the first name in the alphabet.

    Returns:
        Text of each split: of ten topics in alphabetical order, the first is for validation, the sixth for the test.

    Example:
        >>> from sparse_rnn.data.pydoc import divide_topics
        >>> divide_topics({name: f"{name}. " for name in "ABCDEFGH"})
        {'train': 'B. C. D. E. G. H. ', 'val': 'A. ', 'test': 'F. '}
    """
    distinct = list(dict.fromkeys(text for _, text in sorted(topics.items())))
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number, text in enumerate(distinct):
        parts[{_VAL: "val", _TEST: "test"}.get(number % _OF, "train")].append(text)
    return {split: "".join(texts) for split, texts in parts.items()}


def _topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError(
            "This Python has no pydoc_data, the topics of its help(): install the whole of its standard library, or"
            " take TextFiles."
        ) from None
    return dict(topics)
