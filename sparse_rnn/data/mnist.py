"""MNIST as sequences: rows, pixels or permuted pixels of handwritten digits."""

import os
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from sparse_rnn.checks import check_number
from sparse_rnn.data.download import check, data_folder, download
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.idx import read_idx
from sparse_rnn.data.labelled import LabelledSequences, Splits, divide
from sparse_rnn.errors import check_choice
from sparse_rnn.paths import check_local

Order = Literal["rows", "pixels", "permuted"]
Division = Literal["standard", "paper"]

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}

SIDE = 28
PERMUTATION_SEED = 0


class SequentialMNIST(LabelledSequences):
    """MNIST's 70,000 handwritten digits of 28 x 28 pixels, read as sequences, 10 classes.

    The four files ``{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`` are read from ``root``, by default
    ``$SPARSE_RNN_DATA/mnist``, or a folder in the user's cache where that variable is not set; missing files are
    downloaded there. Other contents than the published ones are refused, so that results stay comparable.

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits"; the permuted task is that of Le,
    Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified linear units" (arXiv 1504.00941).

    Args:
        order: ``rows`` gives 28 steps of 28 pixels, ``pixels`` 784 steps of one, ``permuted`` those 784 in a random
            order that is the same for every image, split, run and ``seed``.
        scale: Value of the brightest pixel; the darkest is 0. The code of the authors of arXiv 1912.00120 uses 0.1.
        split: ``standard`` divides the training images at random, in the same way for every ``seed``, into 55,000 and
            5,000 for validation and leaves the 10,000 test images alone. ``paper`` is the division of arXiv 1912.00120:
            training on the 60,000 training images and the first 3,000 test images, validation AND test on the other
            7,000 test images.
        batch_size: Samples in a batch, on each rank.
        seed: Decides the order of the training batches.
        root: Folder of the four files.
        hold_out: Share of the training samples, the last ones, to validate on in place of the validation set, and
            not to train on: for choosing hyperparameters without a look at what results are reported on.

    Raises:
        UsageError: If the order or the split is unknown, or the batch size, the seed or the share
            that is held out cannot be used.

    Example:
        >>> from sparse_rnn.data import SequentialMNIST
        >>> data = SequentialMNIST(order="permuted", root="my/mnist")
        >>> data.input_size, data.num_classes, data.folder.as_posix()
        (1, 10, 'my/mnist')
    """

    def __init__(
        self,
        order: Order = "rows",
        scale: float = 1.0,
        split: Division = "standard",
        batch_size: int = 64,
        seed: int = 0,
        root: str | Path | None = None,
        hold_out: float = 0.0,
    ) -> None:
        super().__init__(batch_size, seed, hold_out)
        check_choice("order", order, Order)
        check_choice("split", split, Division)
        self.order: Order = order
        check_number("scale", scale)
        self.scale = scale
        self.split = split
        check_local(root)
        self.root = root

    @property
    def input_size(self) -> int:
        """Pixels in a step, 28 or 1."""
        return SIDE if self.order == "rows" else 1

    @property
    def num_classes(self) -> int:
        """Number of classes, the digits 0 … 9."""
        return 10

    @property
    def folder(self) -> Path:
        """The folder where the four files lie, or will be downloaded to."""
        return data_folder("mnist", self.root)

    def prepare_data(self) -> None:
        """Download the files that are missing.

        Raises:
            DataError: If a file is missing, and no mirror delivers it.
        """
        for file, sha256 in SHA256.items():
            if not os.path.exists(self.folder / file):
                download(file, sha256, self.folder, MIRRORS, self._advice)

    def load(self) -> Splits:
        """Read the four files and divide the images.

        Raises:
            DataError: If a file is missing, damaged or not the published one.
        """
        train, test = self._read("train"), self._read("t10k")
        if self.split == "standard":
            held_out = len(train) // 12  # 5,000 of 60,000
            train, val = divide(train, (len(train) - held_out, held_out))
            return Splits(train, val, test)
        extra, rest = (TensorDataset(*test[part]) for part in (slice(3000), slice(3000, None)))
        joined = (torch.cat(pair) for pair in zip(train.tensors, extra.tensors, strict=True))
        return Splits(TensorDataset(*joined), rest, rest)

    def _read(self, prefix: str) -> TensorDataset:
        images_file, labels_file = (f"{prefix}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        images = read_idx(self.folder / images_file, 3, self._advice)
        labels = read_idx(self.folder / labels_file, 1, self._advice)
        if images.shape != (len(labels), SIDE, SIDE):
            found = f"{' x '.join(map(str, images.shape))} pixels beside {len(labels)} labels in {labels_file}"
            raise DataError(f"{self.folder / images_file} has {found}: {self._advice}.")
        for file in (images_file, labels_file):
            check(self.folder / file, SHA256[file], self._advice)
        return TensorDataset(as_sequences(images, self.order).div_(255).mul_(self.scale), labels.long())

    @property
    def _advice(self) -> str:
        return (
            f"place the original {', '.join(SHA256)} in {self.folder}, or try gru_digits.yaml, which needs no download"
        )


def as_sequences(images: Tensor, order: Order) -> Tensor:
    """Turn images into sequences.

    Args:
        images: The images, [N, 28, 28].
        order: What a step is: see :class:`SequentialMNIST`.

    Returns:
        The sequences, float32: [N, 28, 28] for rows, [N, 784, 1] for the other orders.

    Example:
        >>> import torch
        >>> from sparse_rnn.data.mnist import as_sequences
        >>> images = torch.arange(784).view(1, 28, 28)
        >>> as_sequences(images, "rows")[0, 1, :3]
        tensor([28., 29., 30.])
        >>> as_sequences(images, "pixels")[0, 28:31, 0]
        tensor([28., 29., 30.])
        >>> as_sequences(images, "permuted")[0, :3, 0]
        tensor([ 60., 361., 167.])
    """
    if order == "rows":
        return images.float()
    pixels = images.flatten(start_dim=1)
    if order == "permuted":
        pixels = pixels[:, torch.randperm(SIDE**2, generator=torch.Generator().manual_seed(PERMUTATION_SEED))]
    return pixels.float().unsqueeze(-1)
