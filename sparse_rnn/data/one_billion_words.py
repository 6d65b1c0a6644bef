"""The One Billion Word benchmark: sentences of news, in shards."""

from pathlib import Path
from typing import Any

from sparse_rnn.data.download import data_folder, download_archive
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.text import TextData, matching
from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.data.tokens.tokenization import Words

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


class OneBillionWords(TextData):
    """The One Billion Word benchmark: 30,301,028 shuffled sentences of news for training, 99 shards; 793,471 words.

    The token ``<S>`` ends every sentence. Shards are read from ``root``, by default ``$SPARSE_RNN_DATA/lm1b``, or a
    folder in the user's cache where that variable is not set, in the layout of the original archive::

        training-monolingual.tokenized.shuffled/news.en-00001-of-00100 … 00099
        heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050 … 00049

    Where there is no training shard at all, the archive (1.8 GB, 4 GB unpacked) is downloaded there. Fewer shards are
    taken only where ``train`` names them; results are then not comparable with published ones.

    Source: Chelba et al., "One billion word benchmark for measuring progress in statistical language modeling"
    (arXiv 1312.3005).

    Args:
        vocab_size: words to keep, the most frequent of the training shards, ``<unk>`` included, which stands for the
            rest; null keeps all. arXiv 1912.00120 keeps 100,000. Of no effect beside ``vocabulary``.
        train: the training shards, a path or a pattern; relative ones begin at ``root``.
        val: the shards for validation; by default the second of the held-out ones.
        test: the shards of the test; by default the first of the held-out ones, as published results have it.
        shuffle: show each rank the sentences of its share of the text in a new order every epoch.
        batch_size: columns of the training text, on each rank.
        bptt: steps of a batch.
        eval_batch_size: columns of the other texts, on all ranks together.
        seed: decides the orders of the sentences.
        vocabulary: the words and their ids, ours or torchtext's; by default those of the training text.
        root: folder of the shards.
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
    ) -> None:
        super().__init__(batch_size, bptt, eval_batch_size, vocabulary)
        self.patterns = {"train": train, "val": val, "test": test}
        self.shuffle = shuffle
        self.root = root
        self._seed = seed
        self._words_to_keep = vocab_size if vocabulary is None else None

    @property
    def folder(self) -> Path:
        """Where the shards lie, or will."""
        return data_folder("lm1b", self.root)

    @property
    def sentence_mark(self) -> int | None:
        """Id of ``<S>`` where sentences are shuffled.

        Raises:
            DataError: the vocabulary has no ``<S>``.
        """
        if not self.shuffle:
            return None
        if SENTENCE_MARK not in self.vocabulary:
            raise DataError(f"The vocabulary has no {SENTENCE_MARK}, which ends sentences: add it, or do not shuffle.")
        return self.vocabulary[SENTENCE_MARK]

    @property
    def seed(self) -> int:
        """Decides the orders of the sentences."""
        return self._seed

    def prepare_data(self) -> None:
        """Download the archive where there is no training shard, and turn the shards into ids.

        Raises:
            DataError: shards are missing, and no mirror delivers them.
        """
        if self.patterns["train"] == TRAIN and not any(self.folder.glob(TRAIN)):
            download_archive(ARCHIVE, SHA256, self.folder, MIRRORS, self._advice)
        super().prepare_data()

    def corpus(self) -> Corpus:
        """Find the shards.

        Raises:
            DataError: shards are missing.
        """
        files = {split: matching(pattern, self.folder, self._advice) for split, pattern in self.patterns.items()}
        if self.patterns["train"] == TRAIN and len(files["train"]) != TRAIN_SHARDS:
            raise DataError(
                f"{self.folder / TRAIN} matches {len(files['train'])} of the {TRAIN_SHARDS} training shards:"
                f" {self._advice}."
            )
        return Corpus(files, Words(SENTENCE_MARK), self._words_to_keep, self._given_vocabulary)

    @property
    def _advice(self) -> str:
        return (
            f"unpack {ARCHIVE} in {self.folder}, without its outermost folder, name the shards that are to be taken as"
            " train, val and test, or try lstm_pydoc.yaml, which needs no download"
        )
