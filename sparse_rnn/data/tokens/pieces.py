"""Divide text files into pieces and count the words of each, in memory that does not grow with the text."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from sparse_rnn.data.errors import DataError
from sparse_rnn.data.tokens.encoding import MARK
from sparse_rnn.data.tokens.tokenization import Tokenization

PIECE_BYTES = 32 * 2**20  # what a process is given at a time, and what an interrupt loses
CHUNK_BYTES = 2**20  # what is split into words at a time: more would fall out of the processor's cache
WINDOW_BYTES = 2**12


class Piece(NamedTuple):
    """A part of a text file, between two places where the text may be cut, and the files that are made of it.

    Args:
        path: The file.
        start: Position of the first byte.
        end: Position after the last byte.
        ids: File of the provisional ids of the tokens, int32: words are numbered as they first occur in the piece.
        record: File of the piece's :class:`Record`, which is there once the piece is finished.
    """

    path: Path
    start: int
    end: int
    ids: Path
    record: Path

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.end - self.start

    @property
    def tokens(self) -> int:
        """Number of tokens, once they are counted."""
        return self.ids.stat().st_size // np.dtype(np.int32).itemsize


class Record(NamedTuple):
    """What a piece of text holds.

    Args:
        words: Its words in the order of their first occurrence; a word's place in this list is its provisional id.
        counts: How often each word occurs.
        sha256: Checksum of the whole file, in the record of the file's first piece only.
    """

    words: list[str]
    counts: list[int]
    sha256: str | None


def divide(path: Path, tokenization: Tokenization, folder: Path, name: str) -> list[Piece]:
    """Divide a text file into pieces of about ``PIECE_BYTES`` bytes.

    Args:
        path: The file.
        tokenization: Says where text may be cut.
        folder: Where the files go that are made of the pieces.
        name: What the names of these files begin with.

    Returns:
        The pieces, in their order.

    Raises:
        DataError: If the file cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.tokens.pieces import divide
        >>> from sparse_rnn.data.tokens.tokenization import Words
        >>> with tempfile.TemporaryDirectory() as name:
        ...     path = Path(name) / "text.txt"
        ...     _ = path.write_text("the cat sat")
        ...     [piece] = divide(path, Words(), Path(name), "train")
        >>> piece.start, piece.end, piece.record.name
        (0, 11, 'train-0-11.json')
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): make it readable, or give another path.") from None
    with file:
        cuts = list(_cuts(file, 0, path.stat().st_size, PIECE_BYTES, tokenization))
    stems = [f"{name}-{start}-{end}" for start, end in cuts]
    return [
        Piece(path, start, end, folder / f"{stem}.ids", folder / f"{stem}.json")
        for (start, end), stem in zip(cuts, stems, strict=True)
    ]


def count(piece: Piece, tokenization: Tokenization) -> None:
    """Count the words of a piece: write the provisional ids of its tokens, then its record.

    Args:
        piece: The piece.
        tokenization: What divides its text into tokens.

    Raises:
        DataError: If the text is not UTF-8.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.tokens.pieces import count, divide, read_record
        >>> from sparse_rnn.data.tokens.tokenization import Words
        >>> with tempfile.TemporaryDirectory() as name:
        ...     path = Path(name) / "text.txt"
        ...     _ = path.write_text("a cat and a mat")
        ...     [piece] = divide(path, Words(), Path(name), "train")
        ...     count(piece, Words())
        ...     record = read_record(piece)
        ...     piece.tokens, record.words, record.counts
        (6, ['a', 'cat', 'and', 'mat', '<eos>'], [2, 1, 1, 1, 1])
    """
    provisional: defaultdict[str, int] = defaultdict()
    provisional.default_factory = provisional.__len__
    counts = np.zeros(0, np.int64)
    unfinished = piece.ids.with_suffix(f".{os.getpid()}")
    with unfinished.open("wb") as out:
        for text in _texts(piece, tokenization):
            tokens = tokenization(text)
            chunk = np.fromiter(map(provisional.__getitem__, tokens), np.int32, len(tokens))
            before, counts = counts, np.bincount(chunk, minlength=len(provisional))
            counts[: len(before)] += before
            chunk.tofile(out)
    os.replace(unfinished, piece.ids)
    record = Record(list(provisional), counts.tolist(), None if piece.start else _sha256(piece.path))
    unfinished.write_text(json.dumps(record._asdict()), encoding="utf-8")
    os.replace(unfinished, piece.record)


def read_record(piece: Piece) -> Record:
    """Read the record of a finished piece.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.tokens.pieces import count, divide, read_record
        >>> from sparse_rnn.data.tokens.tokenization import Characters
        >>> with tempfile.TemporaryDirectory() as name:
        ...     path = Path(name) / "text.txt"
        ...     _ = path.write_text("abba")
        ...     [piece] = divide(path, Characters(), Path(name), "train")
        ...     count(piece, Characters())
        ...     read_record(piece).counts  # of a, b and the line feed
        [2, 2, 1]
    """
    return Record(**json.loads(piece.record.read_text(encoding="utf-8")))


def _texts(piece: Piece, tokenization: Tokenization) -> Iterator[str]:
    """Read a piece in chunks, without a byte order mark, and add a line feed where the file ends without one.

    Of a raw file nothing is left out or added, and bytes that are no UTF-8 become surrogates.
    """
    is_raw = getattr(tokenization, "raw", False)  # a tokenization of the user's need not say so
    with piece.path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for start, end in _cuts(file, piece.start, piece.end, CHUNK_BYTES, tokenization):
            file.seek(start)
            raw = file.read(end - start)
            if end == size and not is_raw and not raw.endswith(b"\n"):
                raw += b"\n"
            try:
                text = raw.decode("utf-8", "surrogateescape" if is_raw else "strict")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{piece.path} is not UTF-8: byte {start + error.start:,} is {raw[error.start]:#04x}; convert it,"
                    " for example with iconv."
                ) from None
            yield text if start or is_raw else text.removeprefix(MARK)


def _cuts(file: BinaryIO, start: int, end: int, step: int, tokenization: Tokenization) -> Iterator[tuple[int, int]]:
    """Divide a range of bytes into runs of ``step`` bytes and as many more as it takes to where text may be cut."""
    while start < end:
        cut = _next_cut(file, start + step, end, tokenization)
        yield start, cut
        start = cut


def _next_cut(file: BinaryIO, at: int, end: int, tokenization: Tokenization) -> int:
    while at < end:
        file.seek(at - 1)
        if match := tokenization.boundary.search(file.read(WINDOW_BYTES)):
            return at - 1 + match.end()
        at += WINDOW_BYTES - 1  # windows overlap, as a boundary may look one byte ahead
    return end


def _sha256(path: Path) -> str:
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            checksum.update(block)
    return checksum.hexdigest()
