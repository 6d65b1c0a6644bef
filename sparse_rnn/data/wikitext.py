"""WikiText-2 and WikiText-103: good and featured articles of Wikipedia, divided into words."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from sparse_rnn.data.download import check, data_folder, download_archive
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.options import described
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

# Checksums of the files as in gluon-nlp's scripts.
WIKITEXT_2 = Archive(
    "wikitext-2",
    "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
    {
        TRAIN: "sha1:863f29c46ef9d167fff4940ec821195882fe29d1",
        VAL: "sha1:0418625c8b4da6e4b5c7a0b9e78d4ae8f7ee5422",
        TEST: "sha1:c7b8ce0aa086fb34dab808c5c49224211eb2b172",
    },
)
WIKITEXT_103 = Archive(
    "wikitext-103",
    "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590",
    {
        TRAIN: "sha1:b7497e2dfe77e72cfef5e3dbc61b7b53712ac211",
        VAL: "sha1:c326ac59dc587676d58c422eb8a03e119582f92b",
        TEST: "sha1:8a5befc548865cec54ed4273cf87dbbad60d1e47",
    },
)


class _WikiText(TextData):
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


@described
class WikiText2(_WikiText):
    """WikiText-2: 2,088,628 tokens for training, 217,646 for validation and 245,569 for the test; 33,278 words.

    Words are what white space separates. Rare words are ``<unk>`` in the text itself, and the token ``<eos>`` ends
    every line, blank ones too. The files ``wiki.{train,valid,test}.tokens`` are read from ``root``, by default
    ``$SPARSE_RNN_DATA/wikitext-2``, or a folder in the user's cache where that variable is not set; missing files are
    downloaded there. Other contents than the published ones are refused, so that results stay comparable.

    Source: Merity, Xiong, Bradbury and Socher, "Pointer sentinel mixture models" (arXiv 1609.07843).

    Args:
        root: Folder of the three files.

    Raises:
        UsageError: If one of the sizes is below 1, or a share is out of range.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        >>> from sparse_rnn.data import WikiText2
        >>> data = WikiText2(bptt=35, root="my/wikitext")
        >>> [data.files["train"], data.folder.as_posix()]
        ['wiki.train.tokens', 'my/wikitext']
    """

    def __init__(
        self,
        batch_size: int = 64,
        bptt: int = 20,
        eval_batch_size: int = 64,
        vocabulary: Any = None,
        root: str | Path | None = None,
        hold_out: float = 0.0,
        train_sample: float = 0.0,
        subwords: int | str | Path | None = None,
    ) -> None:
        super().__init__(
            WIKITEXT_2, TRAIN, batch_size, bptt, eval_batch_size, vocabulary, root, hold_out, train_sample, subwords
        )


@described
class WikiText103(_WikiText):
    """WikiText-103: 103,227,021 tokens for training, the validation and test text of WikiText-2; 267,735 words.

    Words are what white space separates. Rare words are ``<unk>`` in the text itself, and the token ``<eos>`` ends
    every line, blank ones too. The files ``wiki.{train,valid,test}.tokens`` are read from ``root``, by default
    ``$SPARSE_RNN_DATA/wikitext-103``, or a folder in the user's cache where that variable is not set; missing files
    are downloaded there. Other contents than the published ones are refused, so that results stay comparable.

    Source: Merity, Xiong, Bradbury and Socher, "Pointer sentinel mixture models" (arXiv 1609.07843).

    Args:
        root: Folder of the three files.
        train_file: Name of the training text in that folder. A text other than the published one, such as a part of
            it, is taken as it is, but only when it is named here. Its results cannot be compared with published ones.

    Raises:
        UsageError: If one of the sizes is below 1, or a share is out of range.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        >>> from sparse_rnn.data import WikiText103
        >>> data = WikiText103(root="my/wikitext", train_file="first_half.tokens")
        >>> data.files
        {'train': 'first_half.tokens', 'val': 'wiki.valid.tokens', 'test': 'wiki.test.tokens'}
    """

    way_out = ", name another training text as train_file"

    def __init__(
        self,
        batch_size: int = 64,
        bptt: int = 20,
        eval_batch_size: int = 64,
        vocabulary: Any = None,
        root: str | Path | None = None,
        train_file: str = TRAIN,
        hold_out: float = 0.0,
        train_sample: float = 0.0,
        subwords: int | str | Path | None = None,
    ) -> None:
        super().__init__(
            WIKITEXT_103,
            train_file,
            batch_size,
            bptt,
            eval_batch_size,
            vocabulary,
            root,
            hold_out,
            train_sample,
            subwords,
        )
