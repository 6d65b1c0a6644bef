import math

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.text import Perplexity as PerplexityOfLogits

from sparse_rnn.modules import BitsPerToken, Perplexity, TokenLoss

WORDS = 7


@pytest.fixture
def batches():
    """Logits and targets of batches of different sizes."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(1, size, WORDS, generator=generator), torch.randint(WORDS, (1, size), generator=generator))
        for size in (5, 1, 12)
    ]


def test_the_metrics_are_those_of_all_tokens_together(batches):
    loss, perplexity, bits, reference = TokenLoss(), Perplexity(), BitsPerToken(), PerplexityOfLogits()
    for logits, target in batches:
        nll = F.cross_entropy(logits[0], target[0], reduction="sum")
        loss.update(nll, torch.tensor(target.numel()))
        perplexity.update(nll, torch.tensor(target.numel()))
        bits.update(nll, torch.tensor(target.numel()))
        reference.update(logits, target)
    torch.testing.assert_close(perplexity.compute(), reference.compute().double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(loss.compute(), perplexity.compute().log())
    torch.testing.assert_close(bits.compute(), perplexity.compute().log2())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_exact_in_a_model_of_half_precision(dtype):
    perplexity = Perplexity()
    torch.nn.ModuleList([perplexity]).to(dtype)  # as Lightning makes a model bf16-true
    for _ in range(2):
        for _ in range(200):
            perplexity.update(torch.tensor(2000.0), torch.tensor(1000))
        assert perplexity.compute().item() == pytest.approx(math.exp(2))
        perplexity.reset()


def test_equally_probable_words_have_the_perplexity_of_their_number():
    perplexity = Perplexity()
    perplexity.update(3 * torch.tensor(WORDS).log(), torch.tensor(3))
    assert perplexity.compute().item() == pytest.approx(WORDS)


def test_tokens_are_counted_on_beyond_what_float32_holds():
    perplexity = Perplexity()
    for tokens in (2**24, 1, 1):
        perplexity.update(torch.tensor(2.0 * tokens), torch.tensor(tokens))
    assert perplexity.tokens == 2**24 + 2
    assert perplexity.compute().item() == pytest.approx(torch.e**2)


def test_a_reset_forgets():
    loss = TokenLoss()
    loss.update(torch.tensor(9.0), torch.tensor(1))
    loss.reset()
    loss.update(torch.tensor(1.0), torch.tensor(2))
    assert loss.compute() == 0.5


def test_updates_go_on_after_inference_mode():
    loss = TokenLoss()
    with torch.inference_mode():
        loss.update(torch.tensor(1.0), torch.tensor(1))
    loss.update(torch.tensor(3.0), torch.tensor(1))
    assert loss.compute() == 2
