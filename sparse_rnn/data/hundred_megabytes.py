"""A file of 100,000,000 bytes from Wikipedia in three splits, as the data sets Text8 and Enwik8 have it."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from sparse_rnn.data.download import cache_folder, check, data_folder, download_archive, write_once
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.text import TextData
from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.data.tokens.tokenization import Bytes
from sparse_rnn.paths import check_local

MIRRORS = ("http://mattmahoney.net/dc/", "https://data.deepai.org/")


class Published(NamedTuple):
    """A file as it was published, in a zip archive of the same name.

    Args:
        name: Its name, which is that of its folder too.
        archive_sha256: Checksum of the archive.
        sha1: Checksum of the file.
        splits: Bytes of ``train``, ``val`` and ``test``, in this order.
    """

    name: str
    archive_sha256: str
    sha1: str
    splits: Mapping[str, int] = MappingProxyType({"train": 90_000_000, "val": 5_000_000, "test": 5_000_000})


class HundredMegabytes(TextData):
    """Bytes of one published file: 90 million for training, then 5 for validation and 5 for the test.

    Args:
        published: The file.
        batch_size: Columns of the training text, on each rank.
        bptt: Steps of a batch, through which the gradient flows back.
        eval_batch_size: Columns of the other texts, on all ranks together.
        vocabulary: The tokens and their ids, or the path of a checkpoint that has them.
        root: Folder of the file.
        hold_out: Share of the training text to validate on in place of the validation text.
        train_sample: Share of the training text to evaluate beside every validation.
        subwords: Number of subwords to divide the text into, or the path of a ``tokenizer.json``.
    """

    def __init__(
        self,
        published: Published,
        batch_size: int,
        bptt: int,
        eval_batch_size: int,
        vocabulary: Any,
        root: str | Path | None,
        hold_out: float,
        train_sample: float,
        subwords: int | str | Path | None,
    ) -> None:
        super().__init__(batch_size, bptt, eval_batch_size, vocabulary, hold_out, train_sample, subwords)
        self.published = published
        check_local(root)
        self.root = root

    @property
    def folder(self) -> Path:
        """The folder where the file lies, or will be downloaded to."""
        return data_folder(self.published.name, self.root)

    @property
    def file(self) -> Path:
        """The file."""
        return self.folder / self.published.name

    def prepare_data(self) -> None:
        """Download the file where it is missing, check it, and turn it into ids.

        Raises:
            DataError: If it is missing and no mirror delivers it, or is not the published one.
        """
        if not os.path.isfile(self.file):
            archive = f"{self.published.name}.zip"
            there = partial(os.path.isfile, self.file)
            download_archive(archive, self.published.archive_sha256, self.folder, MIRRORS, self._advice, there)
        check(self.file, f"sha1:{self.published.sha1}", self._advice)
        super().prepare_data()

    def corpus(self) -> Corpus:
        """Write the splits to the cache, where they are not there yet.

        Raises:
            DataError: If the file is missing, or the cache cannot be written.
        """
        if not os.path.isfile(self.file):
            raise DataError(f"{self.file} is missing: {self._advice}.")
        folder, files, start = cache_folder(self.published.name) / self.published.sha1[:16], {}, 0
        for split, size in self.published.splits.items():
            files[split] = [write_once(folder / split, partial(self._read, start, size))]
            start += size
        return Corpus(files, Bytes(), vocabulary=self._given_vocabulary)

    def _read(self, start: int, size: int) -> bytes:
        with self.file.open("rb") as file:
            file.seek(start)
            return file.read(size)

    @property
    def _advice(self) -> str:
        name = self.published.name
        return f"place the original {name}, unpacked from {name}.zip, in {self.folder}"
