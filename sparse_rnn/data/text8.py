"""Text8: text of Wikipedia in 27 characters."""

from pathlib import Path
from typing import Any

from sparse_rnn.data.hundred_megabytes import HundredMegabytes, Published
from sparse_rnn.data.options import described

TEXT8 = Published(
    "text8",
    "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    "0dc3edebc970dcc96137e7deda4d9995af9d93de",
)


@described
class Text8(HundredMegabytes):
    """text8: 90,000,000 characters for training, 5,000,000 each for validation and the test; 27 characters.

    The characters are the letters a to z and the space, each of them a token, and there is ``<unk>``, which the text
    never needs. The file ``text8`` is read from ``root``, by default ``$SPARSE_RNN_DATA/text8``, or a folder in the
    user's cache where that variable is not set; where it is missing, it is downloaded there. Other contents than the
    published ones are refused, so that results stay comparable.

    Source: Mahoney, "About the test data" (mattmahoney.net/dc/textdata); the splits are the usual ones.

    Args:
        vocabulary: The tokens and their ids, or the path of a checkpoint that has them. By default those of the
            checkpoint that is evaluated, and in training those of the training text.
        root: Folder of the file.

    Raises:
        UsageError: If one of the sizes is below 1, or a share is out of range.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        >>> from sparse_rnn.data import Text8
        >>> Text8(root="my/data").file.as_posix()
        'my/data/text8'
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
        super().__init__(TEXT8, batch_size, bptt, eval_batch_size, vocabulary, root, hold_out, train_sample, subwords)
