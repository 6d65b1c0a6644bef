"""Write a token store from text in counted pieces."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparse_rnn.data.tokens.corpus import TRAIN
from sparse_rnn.data.tokens.pieces import Piece, read_record
from sparse_rnn.data.tokens.vocabulary import Vocabulary

VERSION = 1
ABOUT_FILE = "store.json"
VOCABULARY_FILE = "vocabulary.json"
CHUNK_IDS = 2**18  # what is renumbered at a time


def write_store(
    folder: Path, splits: Mapping[str, Sequence[Piece]], tokenization: str, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Write the ids of every split, the vocabulary, and what they are made of.

    Args:
        folder: Where they go. What an interrupted attempt has left there is removed.
        splits: Counted pieces of each split.
        tokenization: The ``repr`` of the tokenization that they were counted with.
        vocabulary: The words and their ids.

    Returns:
        What is said about each split in the store: see the attribute ``about`` of
        :class:`~sparse_rnn.data.tokens.TokenStore`.

    Raises:
        DataError: If the vocabulary lacks a word and has no default index.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.tokens import TokenStore, Vocabulary, Words
        >>> from sparse_rnn.data.tokens.pieces import count, divide
        >>> from sparse_rnn.data.tokens.store_writer import write_store
        >>> with tempfile.TemporaryDirectory() as name:
        ...     path = Path(name) / "text.txt"
        ...     _ = path.write_text("a cat")
        ...     [piece] = divide(path, Words(), Path(name), "train")
        ...     count(piece, Words())
        ...     vocabulary = Vocabulary(["<eos>", "cat", "a"])
        ...     _ = write_store(Path(name) / "store", {"train": [piece]}, repr(Words()), vocabulary)
        ...     TokenStore(Path(name) / "store")["train"].tolist()
        [2, 1, 0]
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    counts = {split: np.zeros(len(vocabulary), np.int64) for split in [TRAIN, *splits]}
    about: dict[str, Any] = {"version": VERSION, "tokenization": tokenization, "splits": {}}
    for split, pieces in splits.items():
        about["splits"][split] = _write_split(folder / f"{split}.npy", pieces, vocabulary, counts[split])
    words = {
        "words": vocabulary.get_itos(),
        "default_index": vocabulary.get_default_index(),
        "counts": counts[TRAIN].tolist(),
    }
    (folder / VOCABULARY_FILE).write_text(json.dumps(words), encoding="utf-8")
    (folder / ABOUT_FILE).write_text(json.dumps(about, indent=2), encoding="utf-8")
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())  # the folder gets its name when all of it is on the disk
    return about["splits"]


def sum_counts(pieces: Iterable[Piece]) -> Counter[str]:
    """Count how often each word occurs in counted pieces.

    Args:
        pieces: The pieces.

    Returns:
        The number of times that each word occurs.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.tokens import Words
        >>> from sparse_rnn.data.tokens.pieces import count, divide
        >>> from sparse_rnn.data.tokens.store_writer import sum_counts
        >>> with tempfile.TemporaryDirectory() as name:
        ...     path = Path(name) / "text.txt"
        ...     _ = path.write_text("a cat and a mat")
        ...     [piece] = divide(path, Words(), Path(name), "train")
        ...     count(piece, Words())
        ...     sum_counts([piece, piece]).most_common(1)
        [('a', 4)]
    """
    total: Counter[str] = Counter()
    for piece in pieces:
        record = read_record(piece)
        for word, count in zip(record.words, record.counts, strict=True):
            total[word] += count
    return total


def _write_split(
    path: Path, pieces: Sequence[Piece], vocabulary: Vocabulary, counts: NDArray[np.int64]
) -> dict[str, Any]:
    """Write the ids of a split, add to ``counts`` how often each occurs, and return what the store says about it."""
    tokens, unknown, sources = sum(piece.tokens for piece in pieces), 0, []
    with path.open("wb") as out:
        # Written as a file: the pages of a memory map would count as memory of this process until they are on disk.
        header = {"descr": np.dtype(np.int32).str, "fortran_order": False, "shape": (tokens,)}
        np.lib.format.write_array_header_1_0(out, header)
        for piece in pieces:
            record = read_record(piece)
            final, times = np.array(vocabulary(record.words), np.int32), np.array(record.counts, np.int64)
            np.add.at(counts, final, times)
            unknown += sum(n for word, n in zip(record.words, record.counts, strict=True) if word not in vocabulary)
            if record.sha256 is not None:
                sources.append({"path": str(piece.path), "sha256": record.sha256})
            with piece.ids.open("rb") as provisional:
                while len(chunk := np.fromfile(provisional, np.int32, CHUNK_IDS)):
                    final[chunk].tofile(out)
    return {"tokens": tokens, "unknown": unknown, "sources": sources}
