"""The One Billion Word benchmark: sentences of news, in files that are called shards."""

from pathlib import Path
from typing import Any

from sparse_rnn.checks import check_flag, check_seed
from sparse_rnn.data.download import data_folder, download_archive
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.options import described
from sparse_rnn.data.text import TextData, matching
from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.data.tokens.tokenization import Words
from sparse_rnn.data.tokens.vocabulary import check_size
from sparse_rnn.paths import check_local

ARCHIVE = "1-billion-word-language-modeling-benchmark-r13output.tar.gz"
SHA256 = "01ba60381110baf7f189dfd2b8374de371e8c9a340835793f190bdae9e90a34e"
MIRRORS = (
    "https://www.statmt.org/lm-benchmark/",
    "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/gbw/",
)

TRAIN = "training-monolingual.tokenized.shuffled/news.en-*-of-00100"
TRAIN_SHARDS = 99
VAL = "heldout-monolingual.tokenized.shuffled/news.en.heldout-00001-of-00050"
TEST = "heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050"
SENTENCE_MARK = "<S>"


@described
class OneBillionWords(TextData):
    """The One Billion Word benchmark: 30,301,028 shuffled sentences of news for training; 793,471 words.

    The token ``<S>`` ends every sentence. The text comes in many files, the shards, 99 of them for training. They are
    read from ``root``, by default ``$SPARSE_RNN_DATA/lm1b``, or a
    folder in the user's cache where that variable is not set, in the layout of the original archive::

        training-monolingual.tokenized.shuffled/news.en-00001-of-00100 … 00099
        heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050 … 00049

    Where there is no training shard at all, the archive (1.8 GB, 4 GB unpacked) is downloaded there; unpacking that was
    interrupted goes on. Fewer shards than
    all 99 are taken only where ``train`` names them; results are then not comparable with published ones.

    Source: Chelba et al., "One billion word benchmark for measuring progress in statistical language modeling"
    (arXiv 1312.3005).

    Args:
        vocab_size: Number of words to keep, the most frequent ones of the training shards. ``<unk>`` is one of them
            and stands for the rest. Null keeps all words; arXiv 1912.00120 keeps 100,000. It has no effect where
            ``vocabulary`` is given.
        train: The training shards, a path or a pattern; a relative one begins at ``root``.
        val: The shards for validation; by default the second of the held-out shards.
        test: The shards of the test; by default the first of the held-out shards, as in published results.
        shuffle: Whether each rank sees the sentences of its share of the text in a new order in every epoch.
        seed: Decides the orders of the sentences.
        root: Folder of the shards.

    Raises:
        UsageError: If one of the sizes is below 1, the seed is negative, or a share is out of range.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data import OneBillionWords
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for shard in ("a-1", "a-2", "b-1"):
        ...         _ = (Path(root) / shard).write_text("One sentence .")
        ...     data = OneBillionWords(train="a-*", val="b-1", test="b-1", root=root)
        ...     {split: len(files) for split, files in data.corpus().files.items()}
        {'train': 2, 'val': 1, 'test': 1}
    """

    def __init__(
        self,
        vocab_size: int | None = 100_000,
        train: str = TRAIN,
        val: str = VAL,
        test: str = TEST,
        shuffle: bool = False,
        batch_size: int = 64,
        bptt: int = 20,
        eval_batch_size: int = 64,
        seed: int = 0,
        vocabulary: Any = None,
        root: str | Path | None = None,
        hold_out: float = 0.0,
        train_sample: float = 0.0,
        subwords: int | str | Path | None = None,
    ) -> None:
        super().__init__(batch_size, bptt, eval_batch_size, vocabulary, hold_out, train_sample, subwords)
        check_size(vocab_size)
        check_seed(seed, least=0)
        self.patterns = {"train": train, "val": val, "test": test}
        for pattern in self.patterns.values():
            check_local(pattern)
        check_flag("shuffle", shuffle)
        self.shuffle = shuffle
        check_local(root)
        self.root = root
        self._seed = seed
        self._words_to_keep = vocab_size if vocabulary is None else None

    @property
    def folder(self) -> Path:
        """The folder where the shards lie, or will be downloaded to."""
        return data_folder("lm1b", self.root)

    @property
    def sentence_mark(self) -> int | None:
        """Id of ``<S>`` where sentences are shuffled, else None.

        Raises:
            DataError: If the vocabulary has no ``<S>``.
        """
        if not self.shuffle:
            return None
        if SENTENCE_MARK not in self.vocabulary:
            raise DataError(f"The vocabulary has no {SENTENCE_MARK}, which ends sentences: add it, or do not shuffle.")
        return self.vocabulary[SENTENCE_MARK]

    @property
    def seed(self) -> int:
        """What decides the orders of the sentences."""
        return self._seed

    def prepare_data(self) -> None:
        """Download the archive where there is no training shard, and turn the shards into ids.

        Raises:
            DataError: If shards are missing and no mirror delivers them.
        """
        interrupted = (self.folder / ARCHIVE).exists() and not self._all_shards_there()  # while it was unpacked
        if self.patterns["train"] == TRAIN and (interrupted or not any(self.folder.glob(TRAIN))):
            download_archive(ARCHIVE, SHA256, self.folder, MIRRORS, self._advice, self._all_shards_there)
        super().prepare_data()

    def corpus(self) -> Corpus:
        """Find the shards.

        Raises:
            DataError: If shards are missing.
        """
        files = {split: matching(pattern, self.folder, self._advice) for split, pattern in self.patterns.items()}
        if self.patterns["train"] == TRAIN and len(files["train"]) != TRAIN_SHARDS:
            raise DataError(
                f"{self.folder / TRAIN} matches {len(files['train'])} of the {TRAIN_SHARDS} training shards:"
                f" {self._advice}."
            )
        return Corpus(files, Words(SENTENCE_MARK), self._words_to_keep, self._given_vocabulary)

    def _all_shards_there(self) -> bool:
        return len(list(self.folder.glob(TRAIN))) == TRAIN_SHARDS  # unpacked last

    @property
    def _advice(self) -> str:
        return (
            f"unpack {ARCHIVE} in {self.folder}, without its outermost folder, name the shards that are to be taken as"
            " train, val and test, or try lstm_pydoc.yaml, which needs no download"
        )
