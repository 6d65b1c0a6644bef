"""Softmax over a sample of a large vocabulary, for training."""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from sparse_rnn.checks import check_flag, check_whole
from sparse_rnn.modules.softmax.output_layers import PADDING, FullSoftmax, at_least_float32

_LOG_OF_A_BILLIONTH = math.log(1e-9)
_STREAM = 2**40  # random numbers between the streams of two ranks: a thousand samples a step for 10⁹ steps


class SampledSoftmaxLoss(FullSoftmax):
    """The sampled softmax of Jean et al. (2015), as TensorFlow's ``sampled_softmax_loss`` defines it.

    Every target competes with the same sample of distinct words, which the whole batch shares. The words are drawn
    from the log-uniform distribution P(k) = log((k + 2) / (k + 1)) / log(V + 1), without replacement; therefore the
    vocabulary must be ordered by falling frequency. From the logit of a word the log of its expected count in the
    sample is subtracted, Q(k) = 1 − (1 − P(k))^tries, where ``tries`` is the number of draws that it took to get
    distinct words. A sampled word that is the target itself is left out. The larger the sample, the closer is the loss
    to that of the full softmax. It is computed in float32, under autocast too.

    The gradients of ``weight`` and ``bias`` are sparse: they hold only the rows of targets and samples.
    :class:`~sparse_rnn.modules.RowAdam` and SGD take such gradients, and :class:`~sparse_rnn.modules.RowGradients`
    clips them and exchanges them between ranks. An embedding that shares ``weight`` must be ``sparse=True``; otherwise
    the gradient of both becomes dense.

    The sample depends only on ``position`` and the rank: ranks with the same seed draw different words, and a resumed
    run draws what an unbroken run would have drawn.

    Args:
        hidden_size: Size D of a hidden state.
        vocab_size: Number of words, V.
        num_samples: Number of sampled words, S; fewer than V.
        shared: Whether all ranks draw the same words.

    Attributes:
        position: Where in the stream of random numbers the next sample begins. PyTorch's generator decides the first.

    Raises:
        UsageError: If ``num_samples`` is not between 1 and V − 1.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.softmax import SampledSoftmaxLoss
        >>> layer = SampledSoftmaxLoss(hidden_size=8, vocab_size=1000, num_samples=20)
        >>> loss = layer(torch.randn(4, 8), torch.tensor([5, 7, 0, -100]))  # the last target is padding
        >>> loss.backward()
        >>> layer.weight.grad.is_sparse
        True
        >>> words, tries = layer.draw()
        >>> len(set(words.tolist()))
        20
    """

    bias: nn.Parameter
    position: Tensor

    def __init__(self, hidden_size: int, vocab_size: int, num_samples: int = 1000, shared: bool = False) -> None:
        super().__init__(hidden_size, vocab_size)
        check_whole(
            "num_samples", num_samples, 1, vocab_size - 1, "fewer than the words of the vocabulary, or the full softmax"
        )
        check_flag("shared", shared)
        self.num_samples = num_samples
        self.shared = shared
        self.register_buffer("position", torch.randint(2**62, ()))
        self._tries = _enough_tries(num_samples, vocab_size)

    def forward(self, h_ND: Tensor, target_N: Tensor) -> Tensor:
        """Compute the mean sampled loss of the targets, and move on to the next sample.

        Args:
            h_ND: Hidden states, [N, D].
            target_N: Words, [N], int64; those of -100 do not count.

        Returns:
            The mean over the targets that count, at least float32.
        """
        sample_S, tries = self.draw()
        counts_N = target_N != PADDING
        words_N = target_N.where(counts_N, 0)
        ids_M = torch.cat([words_N, sample_S])
        with torch.autocast(h_ND.device.type, enabled=False):
            rows_MD = at_least_float32(F.embedding(ids_M, self.weight, sparse=True))
            log_count_M = _log_expected_count(ids_M, tries, len(self.weight)).to(rows_MD.dtype)
            offset_M = at_least_float32(self.bias.gather(0, ids_M, sparse_grad=True)) - log_count_M
            true_ND, rows_SD = rows_MD.split([len(words_N), len(sample_S)])
            offset_N, offset_S = offset_M.split([len(words_N), len(sample_S)])

            h_ND = at_least_float32(h_ND)
            true_N = torch.linalg.vecdot(h_ND, true_ND) + offset_N
            logits_NS = F.linear(h_ND, rows_SD, offset_S)
            # Not -inf: where all samples are hits the gradient of their logsumexp would be nan.
            logits_NS.masked_fill_(words_N[:, None] == sample_S, torch.finfo(logits_NS.dtype).min)
            loss_N = F.softplus(logits_NS.logsumexp(dim=1) - true_N)
            return loss_N.where(counts_N, 0).sum() / counts_N.sum()

    @torch.no_grad()
    def draw(self) -> tuple[Tensor, Tensor]:
        """Draw the next sample.

        Returns:
            Distinct words, [S], in the order in which they were first drawn, and the number of tries, a scalar. All
            stay on the device.
        """
        distributed = dist.is_available() and dist.is_initialized() and not self.shared
        first = self.position + (_STREAM * dist.get_rank() if distributed else 0)
        index_T = first + torch.arange(self._tries, device=first.device)
        self.position += self._tries
        return _first_distinct(log_uniform(uniform(index_T), len(self.weight)), self.num_samples)

    def extra_repr(self) -> str:
        """Sizes, for ``print(module)``."""
        return f"{super().extra_repr()}, num_samples={self.num_samples}, shared={self.shared}"


def uniform(index: Tensor) -> Tensor:
    """Compute random numbers in [0, 1) at given positions of the stream that SplitMix64 gives from seed 0.

    SplitMix64 is from Steele et al., "Fast splittable pseudorandom number generators" (2014). A generator of PyTorch
    would have to be seeded from the CPU at each step, and gives other numbers on each kind of device.

    Args:
        index: The positions, int64.

    Returns:
        The numbers, float64, in the shape of ``index``.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.softmax.sampled import uniform
        >>> [round(number, 4) for number in uniform(torch.arange(3)).tolist()]
        [0.8833, 0.4315, 0.0264]
    """
    z = (index + 1) * _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    z = z ^ _shifted(z, 31)
    return _shifted(z, 11).double() * 2**-53


def log_uniform(u: Tensor, vocab_size: int) -> Tensor:
    """Turn uniform random numbers into words of the log-uniform distribution, by the inverse of its sum.

    Args:
        u: The numbers, in [0, 1).
        vocab_size: Number of words, V.

    Returns:
        Words, int64, in the shape of ``u``; word k has the probability log((k + 2) / (k + 1)) / log(V + 1).

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.softmax.sampled import log_uniform
        >>> log_uniform(torch.tensor([0.0, 0.3, 0.6, 0.9]), vocab_size=1000).tolist()
        [0, 6, 62, 500]
    """
    words = (u * math.log(vocab_size + 1)).exp().long() - 1
    return words.clamp(max=vocab_size - 1)  # exp may round up


def probability(words: Tensor, vocab_size: int) -> Tensor:
    """Compute the probability of words under the distribution of :func:`log_uniform`.

    Args:
        words: The words, int64.
        vocab_size: Number of words of the vocabulary, V.

    Returns:
        The probabilities, float64, in the shape of ``words``.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.softmax.sampled import probability
        >>> probability(torch.arange(3), vocab_size=3)
        tensor([0.5000, 0.2925, 0.2075], dtype=torch.float64)
    """
    return (1 / (words.double() + 1)).log1p() / math.log(vocab_size + 1)


def _log_expected_count(words: Tensor, tries: Tensor, vocab_size: int) -> Tensor:
    """Compute log(1 − (1 − P)^tries) in float64: a word counts once, however often it was drawn."""
    return (-(tries * (-probability(words, vocab_size)).log1p()).expm1()).log()


def _first_distinct(draws_T: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the first distinct words and how many tries they took, in fixed shapes, so that no device is waited for."""
    words_T, order_T = draws_T.sort(stable=True)
    is_new_T = torch.ones_like(words_T, dtype=torch.bool)
    is_new_T[1:] = words_T[1:] != words_T[:-1]
    # Should there be too few after all, the last word stands in for those missing.
    tries_S = order_T.where(is_new_T, len(draws_T) - 1).sort().values[:count]
    return draws_T[tries_S], tries_S[-1] + 1


def _enough_tries(count: int, vocab_size: int) -> int:
    """Compute twice the tries after which as many distinct words are expected, or more where that may be too few."""
    log_rest_V = (-probability(torch.arange(vocab_size), vocab_size)).log1p()

    def missing(tries: int) -> float:
        return (tries * log_rest_V).exp().sum().item()

    tries = count
    while vocab_size - missing(tries) < count:
        tries += 1 + tries // 20
    tries *= 2
    while _log_risk(missing(tries), count, vocab_size) > _LOG_OF_A_BILLIONTH:
        tries += 1 + tries // 20
    return tries


def _log_risk(missing: float, count: int, vocab_size: int) -> float:
    """Bound the log of the probability that too few distinct words are drawn, of which so many are expected to miss.

    Whether one word is drawn makes the others less likely, so that Chernoff's bounds hold for the number of those that
    are drawn, and of those that are not; the one is near for few samples, the other for nearly all words.
    """
    drawn, too_many = vocab_size - missing, vocab_size - count + 1
    of_drawn = -((drawn - count) ** 2) / (2 * drawn)
    of_missing = too_many - missing + too_many * math.log(missing / too_many) if missing > 0 else -math.inf
    return min(of_drawn, of_missing)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift bits to the right and bring in zeros; PyTorch's shift of signed numbers brings in the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(constant: int) -> int:
    return constant - 2**64 if constant >= 2**63 else constant
