"""Dropout of the same features at every step of a sequence, and of whole words."""

from torch import Tensor, nn
from torch.nn import functional as F

from sparse_rnn.checks import check_number


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
        check_number("p", p, "[0, 1]", "a probability")
        super().__init__(p)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Drop features of each sequence and scale the others by 1 / (1 - p)."""
        if not self.training:
            return x_BTD
        batch, _, size = x_BTD.shape
        return x_BTD * F.dropout(x_BTD.new_ones(batch, 1, size), self.p)


class WordDropout(nn.Dropout):
    """Dropout of words: all places of a batch at which a dropped word stands have the embedding 0.

    It is the embedding dropout of Gal and Ghahramani (2016) and of Merity, Keskar and Socher (2018, arXiv 1708.02182,
    section 4.3). The matrix of the embedding is not touched, only what was looked up in it, so that it may serve as the
    output layer too, or have sparse gradients.

    Args:
        p: Probability of dropping a word, while training.

    Raises:
        UsageError: If it is no probability.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules import WordDropout
        >>> x = torch.tensor([[0, 1, 0], [2, 0, 2]])
        >>> y = WordDropout(p=0.5)(x, torch.ones(2, 3, 4), vocab_size=3)
        >>> y.shape, bool(y[0, 0, 0] == y[0, 2, 0] == y[1, 1, 3])
        (torch.Size([2, 3, 4]), True)
    """

    def __init__(self, p: float = 0.1) -> None:
        check_number("p", p, "[0, 1]", "a probability")
        super().__init__(p)

    def forward(self, x_BT: Tensor, embedded_BTD: Tensor, vocab_size: int) -> Tensor:  # type: ignore[override]  # words too
        """Drop words and scale the others by 1 / (1 - p).

        Args:
            x_BT: Word ids, [B, T].
            embedded_BTD: Their embeddings, [B, T, D].
            vocab_size: Number of words that there are.
        """
        if not self.training or self.p == 0:
            return embedded_BTD
        factors_V = F.dropout(embedded_BTD.new_ones(vocab_size), self.p)
        return embedded_BTD * factors_V[x_BT].unsqueeze(-1)
