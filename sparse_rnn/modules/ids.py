"""Whole numbers in batches, by which classes, letters and words are looked up."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from sparse_rnn.errors import UsageError
from sparse_rnn.modules.softmax import PADDING


@contextmanager
def looked_up(*wanted: tuple[str, Tensor, int, str], padding: bool = False) -> Iterator[None]:
    """Say in a sentence which number of a batch leads beyond what a model has, where PyTorch fails for it.

    Asking beforehand would make every step wait for the device. On a GPU such a number ends the use of the device, by
    an assertion that nothing can catch.

    Args:
        wanted: For each tensor of numbers what one of them is called, the tensor, how many a model has, and the option
            that says so.
        padding: Whether -100 is no number, but marks what is only there to fill a batch.

    Raises:
        UsageError: If a number is below 0, or not below the number that a model has.

    Example:
        >>> import torch
        >>> y = torch.tensor([0, 3])
        >>> with looked_up(("label", y, 3, "num_classes")):
        ...     torch.nn.functional.cross_entropy(torch.zeros(2, 3), y)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: The data has the label 3, but num_classes=3: those of the model are 0 … 2.
    """
    try:
        yield
    except (IndexError, RuntimeError) as error:
        for what, ids, count, option in wanted:
            fills = (ids == PADDING) & padding
            outside = ids[~fills & ((ids < 0) | (ids >= count))] if ids.is_cpu else None
            if outside is not None and len(outside):
                own = f"those of the model are 0 … {count - 1}"
                raise UsageError(f"The data has the {what} {outside[0]}, but {option}={count}: {own}.") from error
        raise
