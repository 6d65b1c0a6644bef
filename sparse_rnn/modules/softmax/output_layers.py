"""Output layers of language models, which compute a loss from hidden states and target words.

Each is a module: calling it gives the mean loss to train on, its method ``nll`` the summed negative log-likelihood that
the perplexity is computed from, ``log_prob`` that of each target, ``most_probable`` the words to expect, and ``logits``
what to draw words by. Targets of -100 are padding and never count.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse_rnn.checks import check_flag, check_whole, items_of
from sparse_rnn.errors import UsageError

PADDING = -100
_ROWS = 2048
_MAX_LOGITS = 2**24  # 64 MiB of float32


class FullSoftmax(nn.Module):
    """A linear layer and the cross-entropy over the whole vocabulary.

    The weights start uniform within ±1/√hidden_size, like those of ``torch.nn.Linear``, and the biases at zero.

    Args:
        hidden_size: Size D of a hidden state.
        vocab_size: Number of words, V.
        bias: Whether every word has a bias.

    Attributes:
        weight: The weights, [V, D]; they may be those of an embedding.
        bias: The biases, [V], or None.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.softmax import FullSoftmax
        >>> layer = FullSoftmax(hidden_size=2, vocab_size=3, bias=False)
        >>> layer.weight = torch.nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        >>> h = torch.tensor([[0.0, 9.0], [9.0, 0.0]])
        >>> layer.most_probable(h).tolist()
        [1, 0]
        >>> round(layer.nll(h, torch.tensor([1, -100])).item(), 4)  # the second target is padding
        0.0002
    """

    bias: nn.Parameter | None

    def __init__(self, hidden_size: int, vocab_size: int, bias: bool = True) -> None:
        super().__init__()
        check_whole("hidden_size", hidden_size, 1)
        check_whole("vocab_size", vocab_size, 1)
        check_flag("bias", bias)
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None
        nn.init.uniform_(self.weight, -(hidden_size**-0.5), hidden_size**-0.5)

    def forward(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        """Compute the mean negative log-likelihood of the targets.

        Args:
            h_ND: Hidden states, [N, D].
            target_N: Words, [N], int64; those of -100 do not count.

        Returns:
            The mean over the targets that count; float32 where the layer computes in lower precision.
        """
        return F.cross_entropy(at_least_float32(F.linear(h_ND, self.weight, self.bias)), target_N, ignore_index=PADDING)

    def nll(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        """Compute the summed negative log-likelihood of the targets, without gradient, in bounded memory.

        At most 64 MiB of logits exist at a time, however large N and V are. The products are computed in the dtype of
        the weights, under autocast too.

        Args:
            h_ND: Hidden states, [N, D].
            target_N: Words, [N], int64; those of -100 do not count.

        Returns:
            The sum over the targets that count; float32 where the layer computes in lower precision.
        """
        return -self.log_prob(h_ND, target_N).sum()

    @torch.no_grad()
    def log_prob(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        """Compute the log-probability of each target, without gradient, in bounded memory like :meth:`nll`.

        Args:
            h_ND: Hidden states, [N, D].
            target_N: Words, [N], int64.

        Returns:
            Natural logarithms, [N], 0 where the target is -100; float32 where the layer computes in lower precision.

        Raises:
            UsageError: If a target is no word.
        """
        return _full_log_prob(h_ND, target_N, self.weight, self.bias)

    @torch.no_grad()
    def logits(self, h_ND: Tensor) -> Tensor:
        """Compute the logits of all words, of which the softmax is over.

        Args:
            h_ND: Hidden states, [N, D].

        Returns:
            The logits, [N, V], at least float32.
        """
        with torch.autocast(h_ND.device.type, enabled=False):
            return at_least_float32(F.linear(h_ND.to(self.weight.dtype), self.weight, self.bias))

    @torch.no_grad()
    def most_probable(self, h_ND: Tensor) -> Tensor:
        """Find the word of the largest logit, in bounded memory like :meth:`nll`.

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

    One softmax is over the words below the first cutoff and the clusters of rarer words, and each cluster has a softmax
    of its own over its words. Its hidden states have a quarter of the dimensions of those of the cluster before. Words
    must be ordered by falling frequency.

    Args:
        hidden_size: Size D of a hidden state.
        vocab_size: Number of words, V.
        cutoffs: Rising word numbers at which clusters begin, all below V, such as [2000, 10000].

    Raises:
        UsageError: If the cutoffs are not rising, not between 1 and V − 1, or more than D has quarters for.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.softmax import AdaptiveSoftmax
        >>> layer = AdaptiveSoftmax(hidden_size=64, vocab_size=1000, cutoffs=[100, 400])
        >>> h = torch.randn(5, 64)
        >>> loss = layer(h, torch.tensor([3, 50, 120, 700, -100]))
        >>> loss.shape, layer.most_probable(h).shape
        (torch.Size([]), torch.Size([5]))
    """

    def __init__(self, hidden_size: int, vocab_size: int, cutoffs: Sequence[int]) -> None:
        super().__init__()
        check_whole("hidden_size", hidden_size, 1)
        check_whole("vocab_size", vocab_size, 1)
        for cutoff in items_of("cutoffs", cutoffs):
            check_whole("cutoffs", cutoff, 1, vocab_size - 1, "rising word numbers")
        rising = sorted(set(cutoffs))
        if list(cutoffs) != rising or not rising:
            raise UsageError(
                f"cutoffs={list(cutoffs)}: give rising word numbers from 1 to {vocab_size - 1}, one less than the "
                "words of the vocabulary."
            )
        clusters = 0
        while hidden_size // 4 ** (clusters + 1):
            clusters += 1
        if len(rising) > clusters:
            raise UsageError(
                f"cutoffs={list(cutoffs)}: a quarter of the dimensions for each cluster leaves none of "
                f"hidden_size={hidden_size} for the last: give at most {clusters}, or a larger hidden_size."
            )
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(hidden_size, vocab_size, list(cutoffs))

    def forward(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        """Compute the mean negative log-likelihood of the targets: see :meth:`FullSoftmax.forward`."""
        counts_N = target_N != PADDING
        return -self._log_p(h_ND[counts_N], target_N[counts_N]).mean()

    @torch.no_grad()
    def nll(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        """Compute the summed negative log-likelihood of the targets: see :meth:`FullSoftmax.nll`."""
        return -self.log_prob(h_ND, target_N).sum()

    @torch.no_grad()
    def log_prob(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        """Compute the log-probability of each target: see :meth:`FullSoftmax.log_prob`."""
        counts_N = target_N != PADDING
        parts = zip(h_ND.split(self._rows), target_N.where(counts_N, 0).split(self._rows), strict=True)
        return torch.cat([self._log_p(h, target) for h, target in parts]).where(counts_N, 0)

    @torch.no_grad()
    def logits(self, h_ND: Tensor) -> Tensor:
        """Compute the log-probabilities of all words, [N, V]: see :meth:`FullSoftmax.logits`."""
        with torch.autocast(h_ND.device.type, enabled=False):
            return at_least_float32(self.softmax.log_prob(h_ND.to(self.softmax.head.weight.dtype)))

    @torch.no_grad()
    def most_probable(self, h_ND: Tensor) -> Tensor:
        """Find the most probable word: see :meth:`FullSoftmax.most_probable`."""
        with torch.autocast(h_ND.device.type, enabled=False):
            rows = h_ND.to(self.softmax.head.weight.dtype).split(self._rows)
            return torch.cat([self.softmax.predict(h) for h in rows])

    @property
    def _rows(self) -> int:
        """How many hidden states to take at a time, so that their logits stay within bounds."""
        return max(1, _MAX_LOGITS // self.softmax.n_classes)

    def _log_p(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        # PyTorch's module fails under autocast, where its layers give another dtype than they take.
        with torch.autocast(h_ND.device.type, enabled=False):
            return at_least_float32(self.softmax(h_ND.to(self.softmax.head.weight.dtype), target_N).output)


def _full_log_prob(h_ND: Tensor, target_N: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """Compute log-probabilities under a softmax over the whole vocabulary: see :meth:`FullSoftmax.log_prob`."""
    strange = target_N[(target_N != PADDING) & ((target_N < 0) | (target_N >= len(weight_VD)))]
    if len(strange):
        raise UsageError(
            f"A target is {int(strange[0])}, and words are from 0 to {len(weight_VD) - 1}; {PADDING} is padding."
        )
    with torch.autocast(h_ND.device.type, enabled=False):
        h_ND = h_ND.to(weight_VD.dtype)
        parts = [
            _log_prob_of_rows(h, target, weight_VD, bias_V)
            for h, target in zip(h_ND.split(_ROWS), target_N.split(_ROWS), strict=True)
        ]
    return torch.cat(parts)


def _log_prob_of_rows(h_ND: Tensor, target_N: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """Go through the vocabulary in parts, which reads the weights only once, and keep a running log of the sum."""
    counts_N = target_N != PADDING
    words_N = target_N.where(counts_N, 0)
    total_N = at_least_float32(h_ND.new_full((len(h_ND),), -torch.inf))
    true_N = torch.zeros_like(total_N)
    for start, logits in _chunks_of_logits(h_ND, weight_VD, bias_V):
        total_N = torch.logaddexp(total_N, logits.logsumexp(dim=1))
        # Of the same product, as that of a word alone is rounded otherwise, and may be more than the sum of all.
        place_N = words_N - start
        is_here_N = (place_N >= 0) & (place_N < logits.shape[1])
        true_N = logits.gather(1, place_N.where(is_here_N, 0).unsqueeze(1)).squeeze(1).where(is_here_N, true_N)
    return torch.where(counts_N, true_N - total_N, 0)


def _best_of_rows(h_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    best_N = at_least_float32(h_ND.new_full((len(h_ND),), -torch.inf))
    words_N = torch.zeros(len(h_ND), dtype=torch.int64, device=h_ND.device)
    for start, logits in _chunks_of_logits(h_ND, weight_VD, bias_V):
        logit_N, word_N = logits.max(dim=1)
        words_N = torch.where(logit_N > best_N, start + word_N, words_N)
        best_N = torch.maximum(best_N, logit_N)
    return words_N


def _chunks_of_logits(h_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Iterator[tuple[int, Tensor]]:
    """Compute the logits of some words at a time, and yield the first of these words with the logits, [N, some]."""
    chunk = max(1, _MAX_LOGITS // max(1, len(h_ND)))
    for start in range(0, len(weight_VD), chunk):
        part = slice(start, start + chunk)
        yield start, at_least_float32(F.linear(h_ND, weight_VD[part], None if bias_V is None else bias_V[part]))


def at_least_float32(x: Tensor) -> Tensor:
    """Convert values of low precision to float32, in which sums over a vocabulary can be computed.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.softmax.output_layers import at_least_float32
        >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
        >>> at_least_float32(torch.ones(1, dtype=torch.float64)).dtype
        torch.float64
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
