"""Real handwritten digits that need no download."""

import torch
from torch.utils.data import TensorDataset

from sparse_rnn.checks import check_number
from sparse_rnn.data.labelled import LabelledSequences, Splits, divide


class SequentialDigits(LabelledSequences):
    """The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn, read row by row, 10 classes.

    They are divided at random, in the same way for every ``seed``, into 1,257 for training, 270 for validation and 270
    for the test.

    Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI machine learning repository (its
    test set), through ``sklearn.datasets.load_digits``.

    Args:
        batch_size: Samples in a batch, on each rank.
        scale: Value of the brightest pixel; the darkest is 0.
        seed: Decides the order of the training batches.
        hold_out: Share of the training samples, the last ones, to validate on in place of the validation set, and
            not to train on: for choosing hyperparameters without a look at what results are reported on.

    Raises:
        UsageError: If the batch size, the seed or the share that is held out cannot be used.

    Example:
        >>> from sparse_rnn.data import SequentialDigits
        >>> data = SequentialDigits(batch_size=16)
        >>> x, y = next(iter(data.train_dataloader()))
        >>> x.shape, y.shape
        (torch.Size([16, 8, 8]), torch.Size([16]))
        >>> [len(split) for split in data.splits]
        [1257, 270, 270]
    """

    def __init__(self, batch_size: int = 64, scale: float = 1.0, seed: int = 0, hold_out: float = 0.0) -> None:
        super().__init__(batch_size, seed, hold_out)
        check_number("scale", scale)
        self.scale = scale

    @property
    def input_size(self) -> int:
        """Pixels in a row, which is one step."""
        return 8

    @property
    def num_classes(self) -> int:
        """Number of classes, the digits 0 … 9."""
        return 10

    def load(self) -> Splits:
        """Take the scans from scikit-learn and divide them."""
        from sklearn.datasets import load_digits

        scans = load_digits()
        x = torch.from_numpy(scans.images).float() * (self.scale / 16)
        y = torch.from_numpy(scans.target).long()
        train, val, test = divide(TensorDataset(x, y), (1257, 270, 270))
        return Splits(train, val, test)
