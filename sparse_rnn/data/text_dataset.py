"""Text that is in memory, or in a data set of Hugging Face."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sparse_rnn.data.download import cache_folder
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.options import described
from sparse_rnn.data.text_files import Level, TextFiles

# What the split for validation is called on the hub.
_NAMES = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}


@described
class TextDataset(TextFiles):
    """Any text in strings: lists of them, or data sets of Hugging Face, read as :class:`TextFiles` reads files.

    Each string is a line, or several, and a line feed is added where it ends without one. The text is written to the
    folder ``sparse_rnn/datasets`` of the user's cache, under the name of its checksum.

    Args:
        train: The training text: an iterable of strings, or of dictionaries, as a ``datasets.Dataset`` is.
        val: The same for validation.
        test: The same for the test.
        column: The key of the text, where there are dictionaries.

    Raises:
        UsageError: If the level is unknown, one of the sizes is below 1, a share is out of range, or two arguments
            contradict each other.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        >>> from sparse_rnn.data import TextDataset
        >>> data = TextDataset(["the cat sat", "the cat ran"], [{"text": "the cat"}], min_count=1)
        >>> data.vocabulary.lookup_tokens(data.store["val"])
        ['the', 'cat', '<eos>']
    """

    def __init__(
        self,
        train: Any = None,
        val: Any = None,
        test: Any = None,
        column: str = "text",
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
        super().__init__(
            level=level,
            batch_size=batch_size,
            bptt=bptt,
            eval_batch_size=eval_batch_size,
            vocabulary=vocabulary,
            hold_out=hold_out,
            train_sample=train_sample,
            subwords=subwords,
            vocab_size=vocab_size,
            min_count=min_count,
        )
        self.texts = {"train": train, "val": val, "test": test}
        self.column = column
        self._written: dict[str, list[Path]] | None = None

    @classmethod
    def from_splits(cls, splits: Mapping[str, Iterable[Any]], **options: Any) -> "TextDataset":
        """Take the splits of a ``datasets.DatasetDict``.

        Args:
            splits: Texts by name: ``train``, ``validation`` (or ``valid``, ``val``, ``dev``) and ``test``.
            options: Arguments of the class.

        Raises:
            DataError: If none of the splits has one of these names.

        Example:
            >>> from sparse_rnn.data import TextDataset
            >>> data = TextDataset.from_splits({"train": ["a b"], "validation": ["a"], "test": ["b"]}, batch_size=2)
            >>> data.texts["val"]
            ['a']
        """
        found: dict[str, Any] = {
            ours: splits[name] for ours, names in _NAMES.items() for name in reversed(names) if name in splits
        }
        if not found:
            raise DataError(
                f"The splits are {', '.join(splits) or 'none'}: give some named train, validation and test."
            )
        return cls(**(found | options))

    def files(self) -> dict[str, list[Path]]:
        """Write the text of each split to a file in the cache, once.

        Raises:
            DataError: If a text is not made of strings, or the cache cannot be written.
        """
        if self._written is None:  # an iterator can be read once only
            texts = {split: text for split, text in self.texts.items() if text is not None}
            self._written = {split: [self._write(split, text)] for split, text in texts.items()}
        return self._written

    def _write(self, split: str, text: Iterable[Any]) -> Path:
        """Write the lines of a text to a file that is named after its checksum, and appears in its place whole."""
        folder = cache_folder("datasets")
        checksum = hashlib.sha256()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as unfinished:
                try:
                    for row in text:
                        line = self._line(split, row)
                        checksum.update(line)
                        unfinished.write(line)
                except BaseException:
                    os.unlink(unfinished.name)
                    raise
            path = folder / f"{checksum.hexdigest()[:16]}.txt"
            os.replace(unfinished.name, path) if not path.exists() else os.unlink(unfinished.name)
        except OSError as error:
            raise DataError(
                f"The text of {split} could not be written to {folder} ({error.strerror}): put that right, or set"
                " XDG_CACHE_HOME to another folder."
            ) from None
        return path

    def _line(self, split: str, row: Any) -> bytes:
        if isinstance(row, Mapping):
            if self.column not in row:
                raise DataError(f"{split} has no column {self.column!r}: take one of {', '.join(map(repr, row))}.")
            row = row[self.column]
        if not isinstance(row, str):
            raise DataError(f"{split} holds a {type(row).__name__}, not a string: give strings, or name their column.")
        return (row if row.endswith("\n") else f"{row}\n").encode()
