"""Dropout that drops the same features at every step of a sequence."""

from torch import Tensor, nn
from torch.nn import functional as F

from sparse_rnn.errors import UsageError


class VariationalDropout(nn.Dropout):
    """Dropout of sequences [batch, time, features] with one mask for all steps of a sequence.

    The variational dropout of Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural
    networks" (2016), drops features outside and inside the recurrence; this is the part outside.

    Args:
        p: Probability of dropping a feature of a sequence, while training.

    Raises:
        UsageError: If it is no probability.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules import VariationalDropout
        >>> dropout = VariationalDropout(p=0.5)
        >>> y = dropout(torch.ones(1, 3, 100))
        >>> y.unique().tolist()
        [0.0, 2.0]
        >>> torch.equal(y[:, 0], y[:, 2])
        True
    """

    def __init__(self, p: float = 0.5) -> None:
        check_probability("p", p)
        super().__init__(p)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Drop features of each sequence and scale the others by 1 / (1 - p)."""
        if not self.training:
            return x_BTD
        batch, _, size = x_BTD.shape
        return x_BTD * F.dropout(x_BTD.new_ones(batch, 1, size), self.p)


def check_probability(name: str, value: float) -> None:
    """Refuse a value that is no probability.

    Args:
        name: What to call the value in the message.
        value: The value.

    Raises:
        UsageError: If it is not between 0 and 1.

    Example:
        >>> from sparse_rnn.modules.dropout import check_probability
        >>> check_probability("dropout", 1.5)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: dropout=1.5: give a probability, from 0 to 1.
    """
    if not 0 <= value <= 1:
        raise UsageError(f"{name}={value}: give a probability, from 0 to 1.")
