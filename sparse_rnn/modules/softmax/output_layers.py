"""Output layers of language models: from hidden states and target words to a loss.

Each is a module with three methods: calling it gives the mean loss to train on, ``nll`` the summed negative
log-likelihood that perplexity is made of, ``most_probable`` the words to expect. Targets of -100 are padding and never
count.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PADDING = -100
_ROWS = 2048
_MAX_LOGITS = 2**24  # 64 MiB of float32


class FullSoftmax(nn.Module):
    """A linear layer and the cross-entropy over the whole vocabulary.

    Weights start uniform within ±1/√hidden_size, as those of ``torch.nn.Linear``, and biases at zero.

    Args:
        hidden_size: Size D of a hidden state.
        vocab_size: Number of words, V.
        bias: Whether every word has a bias.

    Attributes:
        weight: [V, D]; it may be the weight of an embedding.
        bias: [V], or None.
    """

    bias: nn.Parameter | None

    def __init__(self, hidden_size: int, vocab_size: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None
        nn.init.uniform_(self.weight, -(hidden_size**-0.5), hidden_size**-0.5)

    def forward(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        """Compute the mean negative log-likelihood of the targets.

        Args:
            h_ND: Hidden states, [N, D].
            target_N: Words, [N], int64; those of -100 do not count.

        Returns:
            The mean over the targets that count, float32 where the layer computes in less.
        """
        return F.cross_entropy(at_least_float32(F.linear(h_ND, self.weight, self.bias)), target_N, ignore_index=PADDING)

    def nll(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        """Compute the summed negative log-likelihood of the targets, without gradient, in bounded memory.

        At most 64 MiB of logits exist at a time, however large N and V. The products are of the weights' dtype, under
        autocast too.

        Args:
            h_ND: Hidden states, [N, D].
            target_N: Words, [N], int64; those of -100 do not count.

        Returns:
            The sum over the targets that count, float32 where the layer computes in less.
        """
        return full_nll(h_ND, target_N, self.weight, self.bias)

    @torch.no_grad()
    def most_probable(self, h_ND: Tensor) -> Tensor:
        """Find the word of the largest logit, in bounded memory as :meth:`nll`.

        Args:
            h_ND: Hidden states, [N, D].

        Returns:
            Words, [N], int64.
        """
        with torch.autocast(h_ND.device.type, enabled=False):
            rows = h_ND.to(self.weight.dtype).split(_ROWS)
            return torch.cat([_best_of_rows(h, self.weight, self.bias) for h in rows])

    def extra_repr(self) -> str:
        """Sizes, for ``print(module)``."""
        vocab_size, hidden_size = self.weight.shape
        return f"hidden_size={hidden_size}, vocab_size={vocab_size}, bias={self.bias is not None}"


class AdaptiveSoftmax(nn.Module):
    """The adaptive softmax of ``torch.nn.AdaptiveLogSoftmaxWithLoss`` (Grave et al., 2017).

    The words up to the first cutoff are classes of one softmax, which the rarer words share clusters of; each cluster
    has a quarter of the dimensions of the one before. Words must be ordered by falling frequency.

    Args:
        hidden_size: Size D of a hidden state.
        vocab_size: Number of words, V.
        cutoffs: Rising word numbers at which clusters begin, all below V, such as [2000, 10000].
    """

    def __init__(self, hidden_size: int, vocab_size: int, cutoffs: Sequence[int]) -> None:
        super().__init__()
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(hidden_size, vocab_size, list(cutoffs))

    def forward(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        """Compute the mean negative log-likelihood of the targets; see :meth:`FullSoftmax.forward`."""
        counts_N = target_N != PADDING
        return -self._log_p(h_ND[counts_N], target_N[counts_N]).mean()

    @torch.no_grad()
    def nll(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        """Compute the summed negative log-likelihood of the targets; see :meth:`FullSoftmax.nll`."""
        parts = zip(h_ND.split(self._rows), target_N.split(self._rows), strict=True)
        counted = ((h, target, target != PADDING) for h, target in parts)
        return -torch.stack([self._log_p(h[counts], target[counts]).sum() for h, target, counts in counted]).sum()

    @torch.no_grad()
    def most_probable(self, h_ND: Tensor) -> Tensor:
        """Find the most probable word; see :meth:`FullSoftmax.most_probable`."""
        with torch.autocast(h_ND.device.type, enabled=False):
            rows = h_ND.to(self.softmax.head.weight.dtype).split(self._rows)
            return torch.cat([self.softmax.predict(h) for h in rows])

    @property
    def _rows(self) -> int:
        """Hidden states at a time, that their logits stay within bounds."""
        return max(1, _MAX_LOGITS // self.softmax.n_classes)

    def _log_p(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        # PyTorch's module fails under autocast, where its layers give another dtype than they take.
        with torch.autocast(h_ND.device.type, enabled=False):
            return at_least_float32(self.softmax(h_ND.to(self.softmax.head.weight.dtype), target_N).output)


@torch.no_grad()
def full_nll(h_ND: Tensor, target_N: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """The summed negative log-likelihood under a softmax over the whole vocabulary: see :meth:`FullSoftmax.nll`."""
    with torch.autocast(h_ND.device.type, enabled=False):
        h_ND = h_ND.to(weight_VD.dtype)
        parts = [
            _nll_of_rows(h, target, weight_VD, bias_V)
            for h, target in zip(h_ND.split(_ROWS), target_N.split(_ROWS), strict=True)
        ]
    return torch.stack(parts).sum()


def _nll_of_rows(h_ND: Tensor, target_N: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """Goes through the vocabulary, which reads the weights once only, and keeps a running log of the sum."""
    counts_N = target_N != PADDING
    words_N = target_N.where(counts_N, 0)
    total_N = at_least_float32(h_ND.new_full((len(h_ND),), -torch.inf))
    for _, logits in _chunks_of_logits(h_ND, weight_VD, bias_V):
        total_N = torch.logaddexp(total_N, logits.logsumexp(dim=1))
    true_N = at_least_float32(torch.linalg.vecdot(h_ND, weight_VD[words_N]))
    if bias_V is not None:
        true_N = true_N + bias_V[words_N]
    return torch.where(counts_N, total_N - true_N, 0).sum()


def _best_of_rows(h_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    best_N = at_least_float32(h_ND.new_full((len(h_ND),), -torch.inf))
    words_N = torch.zeros(len(h_ND), dtype=torch.int64, device=h_ND.device)
    for start, logits in _chunks_of_logits(h_ND, weight_VD, bias_V):
        logit_N, word_N = logits.max(dim=1)
        words_N = torch.where(logit_N > best_N, start + word_N, words_N)
        best_N = torch.maximum(best_N, logit_N)
    return words_N


def _chunks_of_logits(h_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Iterator[tuple[int, Tensor]]:
    """Logits of some words at a time, [N, some], and the first of these words."""
    chunk = max(1, _MAX_LOGITS // max(1, len(h_ND)))
    for start in range(0, len(weight_VD), chunk):
        part = slice(start, start + chunk)
        yield start, at_least_float32(F.linear(h_ND, weight_VD[part], None if bias_V is None else bias_V[part]))


def at_least_float32(x: Tensor) -> Tensor:
    """The same values in a type that sums over a vocabulary can be made in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
