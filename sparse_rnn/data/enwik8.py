"""Enwik8: the beginning of Wikipedia, byte by byte."""

from pathlib import Path
from typing import Any

from sparse_rnn.data.hundred_megabytes import HundredMegabytes, Published
from sparse_rnn.data.options import described

ENWIK8 = Published(
    "enwik8",
    "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
    "57b8363b814821dc9d47aa4d41f58733519076b2",
)


@described
class Enwik8(HundredMegabytes):
    """enwik8: 90,000,000 bytes for training, 5,000,000 each for validation and the test; at most 205 different bytes.

    The first 100,000,000 bytes of an XML dump of the English Wikipedia, each of them a token. Bytes that the training
    text lacks are ``<unk>``. The file ``enwik8`` is read from ``root``, by default ``$SPARSE_RNN_DATA/enwik8``, or a
    folder in the user's cache where that variable is not set; where it is missing, it is downloaded there. Other
    contents than the published ones are refused, so that results stay comparable.

    Source: Mahoney, "About the test data" (mattmahoney.net/dc/textdata); the splits are the usual ones.

    Args:
        vocabulary: The tokens and their ids, or the path of a checkpoint that has them. By default those of the
            checkpoint that is evaluated, and in training those of the training text.
        root: Folder of the file.

    Raises:
        UsageError: If one of the sizes is below 1, or a share is out of range.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        >>> from sparse_rnn.data import Enwik8
        >>> Enwik8(root="my/data").file.as_posix()
        'my/data/enwik8'
    """

    def __init__(
        self,
        batch_size: int = 64,
        bptt: int = 100,
        eval_batch_size: int = 64,
        vocabulary: Any = None,
        root: str | Path | None = None,
        hold_out: float = 0.0,
        train_sample: float = 0.0,
        subwords: int | str | Path | None = None,
    ) -> None:
        super().__init__(ENWIK8, batch_size, bptt, eval_batch_size, vocabulary, root, hold_out, train_sample, subwords)
