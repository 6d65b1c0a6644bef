"""What data sets of running text have in common."""

import glob
import os
from abc import abstractmethod
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule

from sparse_rnn.data.download import cache_folder
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.loaders.columns import ColumnLoader
from sparse_rnn.data.loaders.resume import go_on_where_stopped
from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.data.tokens.token_store import TokenStore, prepare
from sparse_rnn.data.tokens.vocabulary import Vocabulary, as_vocabulary


class TextData(LightningDataModule):
    """Running text as token ids, for language models; a data set adds :meth:`corpus`.

    Batches are pairs (x, y), int64 [B, T], y being x one token later, that continue each other row by row: see
    :class:`ColumnLoader`. The training text is cut into ``batch_size`` columns a rank, and what is left over is
    dropped. In evaluation every token but a split's first is predicted exactly once, on any number of ranks; padding
    has the target -100. ``predict`` goes over the test set.

    The text is turned into ids once, into a folder of the user's cache, ``sparse_rnn/tokens``, whose place
    ``$XDG_CACHE_HOME`` decides on Linux: 4 bytes a token. Changed text or settings get a folder of their own; those
    before stay until somebody deletes them, which is always safe while no run reads them.

    Args:
        batch_size: columns of the training text, on each rank.
        bptt: steps of a batch.
        eval_batch_size: columns of the other texts, on all ranks together.
        vocabulary: the words and their ids, ours or torchtext's; by default those of the training text.

    Raises:
        ValueError: if one of the sizes is below 1.
        DataError: the vocabulary is none.
    """

    def __init__(self, batch_size: int, bptt: int, eval_batch_size: int, vocabulary: Any) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("bptt", bptt), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise ValueError(f"{name}={value}: give a number of at least 1.")
        self.batch_size = batch_size
        self.bptt = bptt
        self.eval_batch_size = eval_batch_size
        self._given_vocabulary = None if vocabulary is None else as_vocabulary(vocabulary)
        self._store: TokenStore | None = None

    @abstractmethod
    def corpus(self) -> Corpus:
        """Say which files the splits ``train``, ``val`` and ``test`` are made of, and how they become ids."""

    @property
    def store(self) -> TokenStore:
        """The prepared text, opened when it is first asked for."""
        if self._store is None:
            self._store = prepare(self.corpus(), cache_folder("tokens"))
        return self._store

    @property
    def vocabulary(self) -> Vocabulary:
        """The words and their ids."""
        return self.store.vocabulary

    @property
    def vocab_size(self) -> int:
        """Number of words, V; ids are 0 … V − 1."""
        return len(self.vocabulary)

    @property
    def sentence_mark(self) -> int | None:
        """Id of the token after each sentence, where training is to see the sentences in a new order each epoch."""
        return None

    @property
    def seed(self) -> int:
        """Decides these orders."""
        return 0

    def prepare_data(self) -> None:
        """Turn the text into ids, where that has not been done yet.

        Raises:
            DataError: a file is missing, empty or no UTF-8.
        """
        _ = self.store

    def setup(self, stage: str | None = None) -> None:
        """Open the prepared text, once for all stages."""
        _ = self.store

    def train_dataloader(self) -> ColumnLoader:
        """Return the training text in columns."""
        mark = self.sentence_mark
        if self.trainer is not None:
            go_on_where_stopped(self.trainer)
            if self.trainer.overfit_batches:  # type: ignore[attr-defined]  # Lightning sets it where mypy does not see it
                mark = None
        rank, world_size = self._place
        columns = self.batch_size * world_size
        return ColumnLoader(
            self.store["train"],
            columns,
            self.bptt,
            rank=rank,
            world_size=world_size,
            sentence_mark=mark,
            seed=self.seed,
        )

    def val_dataloader(self) -> ColumnLoader:
        """Return the validation text in columns."""
        return self._whole("val")

    def test_dataloader(self) -> ColumnLoader:
        """Return the test text in columns."""
        return self._whole("test")

    def predict_dataloader(self) -> ColumnLoader:
        """Return the test text in columns."""
        return self.test_dataloader()

    def _whole(self, split: str) -> ColumnLoader:
        rank, world_size = self._place
        return ColumnLoader(
            self.store[split], self.eval_batch_size, self.bptt, pad=True, rank=rank, world_size=world_size
        )

    @property
    def _place(self) -> tuple[int, int]:
        """Rank of this process, and the number of ranks."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def matching(pattern: str | Path, folder: Path, advice: str) -> list[Path]:
    """Return the files that a pattern matches, sorted by name.

    Args:
        pattern: a path, in which ``*``, ``?`` and ``[…]`` stand for what they do in a shell.
        folder: where a relative path begins.
        advice: what the user can do where there is none, the end of the error's sentence.

    Raises:
        DataError: there is no such file.
    """
    path = folder / Path(pattern).expanduser()
    if path.is_file():
        return [path]
    found = sorted(file for file in map(Path, glob.glob(os.fspath(path))) if file.is_file())
    if not found:
        raise DataError(f"{path} matches no file: {advice}.")
    return found
