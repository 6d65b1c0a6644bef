"""Base class of the data sets of running text."""

import glob
import os
from pathlib import Path
from typing import Any

import numpy as np

from sparse_rnn.checks import check_flag, check_whole
from sparse_rnn.data.download import user_path
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.hold_out import check_hold_out, left_to_train_on
from sparse_rnn.data.loaders.columns import ColumnLoader
from sparse_rnn.data.loaders.resume import go_on_where_stopped
from sparse_rnn.data.loaders.windows import WindowLoader, check_share
from sparse_rnn.data.options import described
from sparse_rnn.data.stored_text import StoredText
from sparse_rnn.data.tokens.tokenization import Bytes, Characters


@described
class TextData(StoredText):
    """Running text as token ids, for language models; a subclass adds :meth:`corpus`.

    Batches are pairs (x, y), int64 [B, T], where y is x one token later. Each row of a batch goes on where the same
    row of the batch before ended: see :class:`~sparse_rnn.data.ColumnLoader`. The training text is cut into
    ``batch_size`` columns for each rank, and the few tokens that are left over are dropped. In evaluation every token
    but the first of a split is predicted exactly once, on any number of ranks; padding has the target -100.
    ``predict`` goes over the test set.

    With ``train_sample`` there is a second validation loader: windows of ``bptt`` steps, drawn at random from the text
    that is trained on, the same ones at every validation and in every run, each to be read from the zero state. See
    :class:`~sparse_rnn.data.loaders.WindowLoader`. A model that is not LanguageModel needs a ``validation_step`` that
    takes a ``dataloader_idx``.

    The text is turned into ids once, and the ids are kept, 4 bytes a token, in the folder ``sparse_rnn/tokens`` of the
    user's cache, whose place ``$XDG_CACHE_HOME`` decides on Linux. Changed text or settings get a folder of their own.
    Older folders stay until somebody deletes them, which is safe while no run reads them.

    Args:
        divides: Whether the user has said what a token is, so that a checkpoint that says otherwise is refused.

    Raises:
        UsageError: If one of the sizes is below 1, or a share is out of range.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        A data set of one's own says which files its splits are made of:

        >>> from pathlib import Path
        >>> from sparse_rnn.data import TextData
        >>> from sparse_rnn.data.tokens import Corpus
        >>> class Novel(TextData):
        ...     def corpus(self):
        ...         return Corpus({split: [Path("novel") / f"{split}.txt"] for split in ("train", "val", "test")})
        >>> data = Novel(batch_size=16, bptt=20, eval_batch_size=4, vocabulary=None)
        >>> list(data.corpus().files)
        ['train', 'val', 'test']
    """

    def __init__(
        self,
        batch_size: int,
        bptt: int,
        eval_batch_size: int,
        vocabulary: Any,
        hold_out: float = 0.0,
        train_sample: float = 0.0,
        subwords: int | str | Path | None = None,
        divides: bool = False,
    ) -> None:
        super().__init__(vocabulary, subwords, divides)
        for name, value in (("batch_size", batch_size), ("bptt", bptt), ("eval_batch_size", eval_batch_size)):
            check_whole(name, value, 1)
        check_flag("divides", divides)
        check_hold_out(hold_out)
        check_share(train_sample)
        self.batch_size = batch_size
        self.bptt = bptt
        self.eval_batch_size = eval_batch_size
        self.hold_out = hold_out
        self.train_sample = train_sample

    @property
    def of_characters(self) -> bool:
        """Whether tokens are characters, or bytes, so that bits per token are what is called bits per character."""
        return isinstance(self.lexicon.tokenization, Characters | Bytes)

    @property
    def sentence_mark(self) -> int | None:
        """Id of the token after each sentence, where training is to see the sentences in a new order each epoch."""
        return None

    @property
    def seed(self) -> int:
        """What decides the orders of the sentences."""
        return 0

    def train_dataloader(self) -> ColumnLoader:
        """Return the training text in columns."""
        self.report()
        mark = self.sentence_mark
        if self.trainer is not None:
            go_on_where_stopped(self.trainer)
            if self.trainer.overfit_batches:  # type: ignore[attr-defined]  # Lightning sets it where mypy does not see it
                mark = None
        rank, world_size = self._place
        columns = self.batch_size * world_size
        return ColumnLoader(
            self._trained_on,
            columns,
            self.bptt,
            rank=rank,
            world_size=world_size,
            sentence_mark=mark,
            seed=self.seed,
        )

    def val_dataloader(self) -> ColumnLoader | list[ColumnLoader | WindowLoader]:
        """Return the validation text in columns, and where it is asked for the sample of the training text."""
        columns = self._whole(self._held_out if self.hold_out else self.store["val"])
        return [columns, self._sample] if self.train_sample else columns

    def test_dataloader(self) -> ColumnLoader:
        """Return the test text in columns."""
        return self._whole(self.store["test"])

    def predict_dataloader(self) -> ColumnLoader:
        """Return the test text in columns."""
        return self.test_dataloader()

    def _whole(self, text: np.ndarray) -> ColumnLoader:
        self.report()
        rank, world_size = self._place
        return ColumnLoader(text, self.eval_batch_size, self.bptt, pad=True, rank=rank, world_size=world_size)

    @property
    def reads_training_text(self) -> bool:
        """Whether evaluation needs the training text too."""
        return bool(self.hold_out or self.train_sample)

    @property
    def _sample(self) -> WindowLoader:
        rank, world_size = self._place
        windows = self._trained_on, self.train_sample, self.eval_batch_size, self.bptt
        return WindowLoader(*windows, rank=rank, world_size=world_size)

    @property
    def _trained_on(self) -> np.ndarray:
        text = self.store["train"]
        return text[: left_to_train_on(len(text), self.hold_out)]

    @property
    def _held_out(self) -> np.ndarray:
        text = self.store["train"]
        return text[left_to_train_on(len(text), self.hold_out) :]

    @property
    def _place(self) -> tuple[int, int]:
        """The rank of this process, and the number of ranks."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def matching(pattern: str | Path, folder: Path, advice: str) -> list[Path]:
    """Find the files that a pattern matches.

    Args:
        pattern: A path, in which ``*``, ``?`` and ``[…]`` mean what they mean in a shell.
        folder: Where a relative path begins.
        advice: What the user can do where there is none, the end of the error's sentence.

    Returns:
        The files, sorted by name.

    Raises:
        DataError: If there is no such file.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.text import matching
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for file in ("b.txt", "a.txt", "a.md"):
        ...         (Path(name) / file).touch()
        ...     [path.name for path in matching("*.txt", Path(name), "put the text there")]
        ['a.txt', 'b.txt']
    """
    path = folder / user_path(pattern)
    if os.path.isfile(path):  # unlike Path.is_file, it raises nothing for a path that is too long or not allowed
        return [path]
    below = glob.glob(os.fspath(user_path(pattern)), root_dir=folder)  # the folder's own name is no pattern
    found = sorted(folder / file for file in below if os.path.isfile(folder / file))
    if not found:
        raise DataError(f"{path} matches no file: {advice}.")
    return found
