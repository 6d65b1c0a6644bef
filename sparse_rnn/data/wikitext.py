"""What WikiText-2 and WikiText-103 have in common: good and featured articles of Wikipedia, divided into words."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from sparse_rnn.data.download import check, data_folder, download_archive
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.text import TextData
from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.paths import check_local


class Archive(NamedTuple):
    """An archive that holds a data set.

    Args:
        name: Name of the data set, and of the folder in the archive that holds its files.
        sha256: Checksum of ``{name}-v1.zip``.
        checksums: Checksums of its files of text.
    """

    name: str
    sha256: str
    checksums: dict[str, str]


# The author's, gluon-nlp's, and the one that served until 2024.
MIRRORS = (
    "https://wikitext.smerity.com/",
    "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/{name}/",
    "https://s3.amazonaws.com/research.metamind.io/wikitext/",
)
TRAIN, VAL, TEST = (f"wiki.{split}.tokens" for split in ("train", "valid", "test"))


class WikiText(TextData):
    """Text that is the three files of an archive."""

    way_out = ""  # another thing that the user can do where a file is missing

    def __init__(
        self,
        archive: Archive,
        train_file: str,
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
        self.archive = archive
        self.files = {"train": train_file, "val": VAL, "test": TEST}
        check_local(root)
        self.root = root

    @property
    def folder(self) -> Path:
        """The folder where the three files lie, or will be downloaded to."""
        return data_folder(self.archive.name, self.root)

    def prepare_data(self) -> None:
        """Download the archive where one of its files is missing, check the files, and turn the text into ids.

        Raises:
            DataError: If a file is missing and no mirror delivers it, or a file is not the published one.
        """
        if any(file in self.archive.checksums for file in self._missing):
            zipped = f"{self.archive.name}-v1.zip"
            mirrors = tuple(mirror.format(name=self.archive.name) for mirror in MIRRORS)
            download_archive(zipped, self.archive.sha256, self.folder, mirrors, self._advice, lambda: not self._missing)
        for file in set(self.files.values()) & set(self.archive.checksums):
            check(self.folder / file, self.archive.checksums[file], self._advice)
        super().prepare_data()

    def corpus(self) -> Corpus:
        """Find the three files.

        Raises:
            DataError: If a file is missing.
        """
        if missing := self._missing:
            raise DataError(f"{self.folder / missing[0]} is missing: {self._advice}.")
        files = {split: [self.folder / file] for split, file in self.files.items()}
        return Corpus(files, vocabulary=self._given_vocabulary)

    @property
    def _missing(self) -> list[str]:
        return [file for file in self.files.values() if not os.path.isfile(self.folder / file)]

    @property
    def _advice(self) -> str:
        return (
            f"place the original {', '.join(self.archive.checksums)} of {self.archive.name}-v1.zip in {self.folder}"
            f"{self.way_out}, or try lstm_pydoc.yaml, which needs no download"
        )
