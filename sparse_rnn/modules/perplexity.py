"""Loss per token, bits per token and perplexity, computed from sums, so that no logits are kept."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class TokenLoss(Metric):
    """The negative log-likelihood per token, in nats, over all batches and ranks.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules import TokenLoss
        >>> loss = TokenLoss()
        >>> loss.update(torch.tensor(6.0), torch.tensor(2))
        >>> loss.update(torch.tensor(2.0), torch.tensor(2))
        >>> loss.compute().item()
        2.0
    """

    full_state_update = False
    nll: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        # float32 loses single tokens from 16 million on.
        self.add_state("nll", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Any:
        """Go where a model goes, but stay exact: one that is made half precise would round the sums."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), *args, **kwargs)

    def update(self, nll: Tensor, tokens: Tensor) -> None:
        """Add a batch.

        Args:
            nll: Negative log-likelihood, in nats, summed over the tokens; a scalar.
            tokens: Number of tokens; a scalar.
        """
        # Not in place: after a test, which Lightning runs in inference mode, a further fit could not change them so.
        self.nll = self.nll + nll
        self.tokens = self.tokens + tokens

    def compute(self) -> Tensor:
        """Return the mean over all tokens."""
        return self.nll / self.tokens


class Perplexity(TokenLoss):
    """The perplexity, exp of the negative log-likelihood per token, over all batches and ranks.

    The perplexity of torchmetrics takes the logits of the whole vocabulary; this one takes the sums that an output
    layer gives.

    Example:
        >>> import math, torch
        >>> from sparse_rnn.modules import Perplexity
        >>> perplexity = Perplexity()
        >>> perplexity.update(torch.tensor(3 * math.log(8)), torch.tensor(3))  # three words, each of probability 1/8
        >>> round(perplexity.compute().item(), 4)
        8.0
    """

    def compute(self) -> Tensor:
        """Return the perplexity."""
        return super().compute().exp()


class BitsPerToken(TokenLoss):
    """The negative log-likelihood per token in bits, over all batches and ranks; of characters, bits per character.

    Example:
        >>> import math, torch
        >>> from sparse_rnn.modules import BitsPerToken
        >>> bits = BitsPerToken()
        >>> bits.update(torch.tensor(3 * math.log(8)), torch.tensor(3))  # three characters, each of probability 1/8
        >>> round(bits.compute().item(), 4)
        3.0
    """

    def compute(self) -> Tensor:
        """Return the mean over all tokens."""
        return super().compute() / math.log(2)
