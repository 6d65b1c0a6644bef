import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparse_rnn.errors import UsageError
from sparse_rnn.modules.softmax import output_layers as softmax
from sparse_rnn.modules.softmax.output_layers import AdaptiveSoftmax, FullSoftmax

HIDDEN, WORDS, TARGETS = 16, 37, 23


def examples(dtype=torch.float64, padded=(0, 4, 22)):
    generator = torch.Generator().manual_seed(0)
    h = 3 * torch.randn(TARGETS, HIDDEN, generator=generator, dtype=torch.float64)
    target = torch.randint(WORDS, (TARGETS,), generator=generator)
    target[list(padded)] = -100
    return h.to(dtype), target


def layer(kind, dtype=torch.float64, **options):
    torch.manual_seed(1)
    options = ({"cutoffs": [6, 20]} if kind is AdaptiveSoftmax else {}) | options
    module = kind(HIDDEN, WORDS, **options).to(dtype)
    if getattr(module, "bias", None) is not None:
        nn.init.normal_(module.bias)
    return module


def logits(module, h):
    return h @ module.weight.T + (0 if module.bias is None else module.bias)


@pytest.fixture(params=[2**24, 200, 1], ids=["whole", "chunks", "one logit at a time"])
def chunked(request, monkeypatch):
    monkeypatch.setattr(softmax, "_MAX_LOGITS", request.param)
    monkeypatch.setattr(softmax, "_ROWS", 10)


@pytest.mark.parametrize("bias", [True, False])
def test_the_loss_is_the_mean_cross_entropy_and_has_its_gradient(bias):
    module, (h, target) = layer(FullSoftmax, bias=bias), examples()
    expected = F.cross_entropy(logits(module, h), target)
    torch.testing.assert_close(module(h, target), expected)
    parameters = list(module.parameters())
    assert len(parameters) == 1 + bias
    torch.testing.assert_close(
        torch.autograd.grad(module(h, target), parameters), torch.autograd.grad(expected, parameters)
    )


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("bias", [True, False])
def test_the_most_probable_word_has_the_largest_logit(bias):
    module, (h, _) = layer(FullSoftmax, bias=bias), examples()
    words = module.most_probable(h)
    assert torch.equal(words, logits(module, h).argmax(dim=1))
    assert len(words.unique()) > 5


@pytest.mark.usefixtures("chunked")
def test_the_most_probable_word_of_an_adaptive_softmax():
    module, (h, _) = layer(AdaptiveSoftmax), examples()
    for p in module.parameters():
        nn.init.normal_(p)
    words = module.most_probable(h)
    assert torch.equal(words, module.softmax.log_prob(h).argmax(dim=1))
    assert (words < 6).any()
    assert (words >= 6).any()


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_no_log_probability_is_above_0_in_half_precision(dtype):
    module, (h, _) = layer(FullSoftmax, dtype), examples(dtype)
    every = torch.arange(WORDS).repeat_interleave(TARGETS)
    found = module.log_prob(20 * h.repeat(WORDS, 1), every).unflatten(0, (WORDS, TARGETS))
    assert found.max() <= 0
    torch.testing.assert_close(found.exp().sum(0), torch.ones(TARGETS))


@pytest.mark.parametrize("word", [-1, WORDS])
def test_targets_that_are_no_words_are_refused(word):
    module, (h, target) = layer(FullSoftmax), examples()
    target[1] = word
    with pytest.raises(UsageError, match=rf"A target is {word}, and words are from 0 to 36; -100 is padding"):
        module.log_prob(h, target)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("bias", [True, False])
def test_nll_is_the_summed_cross_entropy(bias):
    module, (h, target) = layer(FullSoftmax, bias=bias), examples()
    expected = F.cross_entropy(logits(module, h), target, reduction="sum")
    torch.testing.assert_close(module.nll(h, target), expected.detach(), rtol=1e-12, atol=0)
    assert not module.nll(h, target).requires_grad


@pytest.mark.usefixtures("chunked")
def test_adaptive_losses_come_from_its_own_log_probabilities():
    module, (h, target) = layer(AdaptiveSoftmax), examples()
    counted = target != -100
    log_p = module.softmax.log_prob(h)[counted].gather(1, target[counted, None])
    torch.testing.assert_close(module(h, target), -log_p.mean())
    torch.testing.assert_close(module.nll(h, target), -log_p.sum().detach())


@pytest.mark.parametrize("kind", [FullSoftmax, AdaptiveSoftmax])
def test_batches_of_padding_have_no_likelihood(kind):
    module, (h, _) = layer(kind), examples()
    assert module.nll(h, torch.full((TARGETS,), -100)) == 0


def test_nll_of_large_logits_is_finite():
    module, (h, target) = layer(FullSoftmax, torch.float32), examples(torch.float32)
    expected = F.cross_entropy(logits(module.double(), 1e4 * h.double()), target, reduction="sum")
    result = module.float().nll(1e4 * h, target)
    torch.testing.assert_close(result.double(), expected.detach(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", [FullSoftmax, AdaptiveSoftmax])
def test_losses_are_float32_and_nll_exact_under_autocast(kind):
    module, (h, target) = layer(kind, torch.float32), examples(torch.float32)
    exact = module.nll(h, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(h, target).dtype == torch.float32
        torch.testing.assert_close(module.nll(h, target), exact)


@pytest.mark.parametrize("kind", [FullSoftmax, AdaptiveSoftmax])
def test_half_precision_layers_sum_in_float32(kind):
    module, (h, target) = layer(kind, torch.bfloat16), examples(torch.bfloat16)
    assert module(h, target).dtype == module.nll(h, target).dtype == torch.float32


class LargestTensor(TorchDispatchMode):
    """Notes the most elements of a tensor that an operation gave."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def test_a_large_vocabulary_is_evaluated_in_bounded_memory():
    words, targets = 800_000, 64
    module = FullSoftmax(1, words)
    with LargestTensor() as largest:
        module.nll(torch.randn(targets, 1), torch.randint(words, (targets,)))
    assert words < largest.numel <= 2**24


def test_a_cluster_without_dimensions_is_refused():
    """PyTorch makes it with a warning, and it cannot learn."""
    with pytest.raises(UsageError, match=r"none of hidden_size=8 for the last: give at most 1, or"):
        AdaptiveSoftmax(8, 100, [10, 40])
    AdaptiveSoftmax(16, 100, [10, 40])
