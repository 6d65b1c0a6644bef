"""English that comes with Python."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from sparse_rnn.data.download import cache_folder
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.text import TextData
from sparse_rnn.data.text_files import Level, tokenization_of
from sparse_rnn.data.tokens.corpus import Corpus

# Of ten topics in alphabetical order, the first validates and the sixth tests.
_VAL, _TEST, _OF = 0, 5, 10


class PydocTopics(TextData):
    """The language reference that ``help()`` shows, from Python's own ``pydoc_data.topics``: no download.

    About 65,000 words in 80 topics, of which every tenth validates and every tenth tests. It differs from one version
    of Python to the next: results can be compared within one only.

    Args:
        level: what a token is, ``word`` or ``char``; see :class:`TextFiles`.
        batch_size: columns of the training text, on each rank.
        bptt: steps of a batch.
        eval_batch_size: columns of the other texts, on all ranks together.
        vocabulary: the words and their ids, ours or torchtext's; by default those of the training text.
    """

    def __init__(
        self,
        level: Level = "word",
        batch_size: int = 64,
        bptt: int = 20,
        eval_batch_size: int = 64,
        vocabulary: Any = None,
    ) -> None:
        super().__init__(batch_size, bptt, eval_batch_size, vocabulary)
        self.tokenization = tokenization_of(level)

    def corpus(self) -> Corpus:
        """Write the topics of each split to a file in the cache, where they are not there yet.

        Raises:
            DataError: this Python has no topics, or the cache cannot be written.
        """
        texts = divide_topics(_topics())
        digest = hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()[:16]
        folder = cache_folder("pydoc") / digest
        try:
            files = {split: [_written(folder / f"{split}.txt", text)] for split, text in texts.items()}
        except OSError as error:
            raise DataError(
                f"The topics could not be written to {folder} ({error.strerror}): put that right, or set"
                " XDG_CACHE_HOME to another folder."
            ) from None
        return Corpus(files, self.tokenization, vocabulary=self._given_vocabulary)


def divide_topics(topics: dict[str, str]) -> dict[str, str]:
    """Join the topics of each split, in alphabetical order; one that has several names comes under the first."""
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


def _written(path: Path, text: str) -> Path:
    """Write a file that is either whole or not there, and not a second time."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(unfinished, path)
    return path
