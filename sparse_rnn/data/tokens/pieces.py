"""Text files in pieces that can be counted apart from each other, in memory that does not grow with the text."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from sparse_rnn.data.errors import DataError
from sparse_rnn.data.tokens.tokenization import Tokenization

PIECE_BYTES = 32 * 2**20  # what a process is given at a time, and what an interrupt loses
CHUNK_BYTES = 2**20  # what is split into words at a time: more would fall out of the processor's cache
WINDOW_BYTES = 2**12


class Piece(NamedTuple):
    """Bytes ``start`` … ``end`` − 1 of a file, between two places where its text may be cut, and what is made of them.

    Args:
        path: the file.
        start: position of the first byte.
        end: position after the last byte.
        ids: file of the tokens' provisional ids, int32.
        record: file of the piece's :class:`Record`; it is there once the piece is finished.
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
    """What is in a piece.

    Args:
        words: its words, in the order of their first occurrence, which is their provisional id.
        counts: how often each occurs.
        sha256: checksum of the whole file, in the record of its first piece only.
    """

    words: list[str]
    counts: list[int]
    sha256: str | None


def divide(path: Path, tokenization: Tokenization, folder: Path, name: str) -> list[Piece]:
    """Divide a file into pieces of about ``PIECE_BYTES``; what is made of them goes to ``folder``, under ``name``."""
    with path.open("rb") as file:
        cuts = list(_cuts(file, 0, path.stat().st_size, PIECE_BYTES, tokenization))
    stems = [f"{name}-{start}-{end}" for start, end in cuts]
    return [
        Piece(path, start, end, folder / f"{stem}.ids", folder / f"{stem}.json")
        for (start, end), stem in zip(cuts, stems, strict=True)
    ]


def count(piece: Piece, tokenization: Tokenization) -> None:
    """Write the provisional ids of a piece, then its record.

    Raises:
        DataError: the text is not UTF-8.
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
    """Read the record of a finished piece."""
    return Record(**json.loads(piece.record.read_text(encoding="utf-8")))


def _texts(piece: Piece, tokenization: Tokenization) -> Iterator[str]:
    """Read a piece in chunks; the last line of a file is ended where the file does not."""
    with piece.path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for start, end in _cuts(file, piece.start, piece.end, CHUNK_BYTES, tokenization):
            file.seek(start)
            raw = file.read(end - start)
            if end == size and not raw.endswith(b"\n"):
                raw += b"\n"
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{piece.path} is not UTF-8: byte {start + error.start:,} is {raw[error.start]:#04x}; convert it,"
                    " for example with iconv."
                ) from None


def _cuts(file: BinaryIO, start: int, end: int, step: int, tokenization: Tokenization) -> Iterator[tuple[int, int]]:
    """Divide the bytes ``start`` … ``end`` − 1 into runs of ``step`` bytes and up to where the text may be cut."""
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
