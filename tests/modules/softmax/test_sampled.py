import copy

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparse_rnn.errors import UsageError
from sparse_rnn.modules.softmax.sampled import SampledSoftmaxLoss, log_uniform, probability, uniform

HIDDEN, WORDS, TARGETS = 4, 50, 12


def examples(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(TARGETS, HIDDEN, generator=generator, dtype=torch.float64)
    return h.to(dtype), torch.randint(WORDS, (TARGETS,), generator=generator)


def layer(num_samples=10, seed=1, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    module = SampledSoftmaxLoss(HIDDEN, WORDS, num_samples, **options)
    nn.init.normal_(module.bias)
    return module.to(dtype)


def brute_force(module, h, target, sample, tries):
    """The definition, one target at a time, hits left out."""
    log_count = (1 - (1 - probability(torch.arange(WORDS), WORDS)) ** tries).log()
    logits = h @ module.weight.T + module.bias - log_count
    losses = []
    for logits_V, t in zip(logits, target.tolist(), strict=True):
        words = [t] + [k for k in sample.tolist() if k != t]
        losses.append(F.cross_entropy(logits_V[words], torch.tensor(0)))
    return torch.stack(losses).mean()


def test_random_numbers_are_those_of_splitmix64():
    # The first outputs of the reference implementation, seed 0 (prng.di.unimi.it/splitmix64.c).
    reference = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert uniform(torch.arange(4)).tolist() == [(bits >> 11) * 2**-53 for bits in reference]


def test_words_are_drawn_log_uniformly():
    words = log_uniform(uniform(torch.arange(200_000)), WORDS)
    expected = probability(torch.arange(WORDS), WORDS)
    assert expected.sum() == pytest.approx(1)
    assert stats.chisquare(words.bincount(minlength=WORDS), 200_000 * expected).pvalue > 0.01


def test_the_largest_random_number_is_the_last_word():
    u = torch.tensor([0, 1 - 2**-53], dtype=torch.float64)
    for vocab_size in (2, 1000, 793_471):
        assert log_uniform(u, vocab_size).tolist() == [0, vocab_size - 1]


def test_samples_are_the_first_distinct_words():
    module = layer(num_samples=20)
    for _ in range(20):
        start = int(module.position)
        sample, tries = module.draw()
        draws = log_uniform(uniform(start + torch.arange(int(tries))), WORDS).tolist()
        assert sample.tolist() == list(dict.fromkeys(draws))
        assert len(sample) == 20


@pytest.mark.parametrize(("words", "samples"), [(3, 2), (4, 2), (5, 4), (30, 29)])
def test_samples_of_small_vocabularies_are_distinct(words, samples):
    module = SampledSoftmaxLoss(2, words, samples)
    assert all(len(set(module.draw()[0].tolist())) == samples for _ in range(300))


def test_words_are_sampled_as_often_as_expected():
    module, seen, expected = layer(num_samples=10), torch.zeros(WORDS), torch.zeros(WORDS)
    p = probability(torch.arange(WORDS), WORDS)
    for _ in range(2000):
        sample, tries = module.draw()
        seen[sample] += 1 / 2000
        expected += (1 - (1 - p) ** tries) / 2000
    torch.testing.assert_close(seen, expected, rtol=0, atol=0.04)


@pytest.mark.parametrize("num_samples", [1, 10, WORDS - 1])
def test_the_loss_is_the_definition_and_hits_never_count(num_samples):
    module, (h, target) = layer(num_samples), examples()
    for _ in range(5):
        sample, tries = copy.deepcopy(module).draw()
        target[:3] = sample[0]
        loss, expected = module(h, target), brute_force(module, h, target, sample, tries)
        torch.testing.assert_close(loss, expected)
        for sparse, dense in zip(
            torch.autograd.grad(loss, list(module.parameters())),
            torch.autograd.grad(expected, list(module.parameters())),
            strict=True,
        ):
            torch.testing.assert_close(sparse.to_dense(), dense)


def test_a_batch_of_hits_alone_has_no_loss_and_no_gradient():
    module, (h, target) = layer(num_samples=1), examples()
    target[:] = copy.deepcopy(module).draw()[0]
    loss = module(h.requires_grad_(), target)
    loss.backward()
    assert loss == 0
    assert not h.grad.any()
    assert not module.weight.grad.to_dense().any()


def test_the_gradient_converges_to_that_of_the_full_softmax():
    h, target = examples()
    full = layer()
    reference = torch.autograd.grad(F.cross_entropy(h @ full.weight.T + full.bias, target), [full.weight, full.bias])
    errors, biases = [], []
    for num_samples in (5, 15, 30, 45, WORDS - 1):
        module, sums, error = layer(num_samples), [0, 0], 0
        for _ in range(100):
            estimate = torch.autograd.grad(module(h, target), [module.weight, module.bias])
            estimate = [gradient.to_dense() for gradient in estimate]
            sums = [total + gradient / 100 for total, gradient in zip(sums, estimate, strict=True)]
            error += distance(estimate, reference) / 100
        errors.append(error)
        biases.append(distance(sums, reference))
    assert errors == sorted(errors, reverse=True)
    assert biases == sorted(biases, reverse=True)
    assert biases[-1] < 0.02


def distance(gradients, reference):
    """Relative to the length of the reference."""
    flat = torch.cat([(a - b).flatten() for a, b in zip(gradients, reference, strict=True)])
    return float(flat.norm() / torch.cat([b.flatten() for b in reference]).norm())


def test_gradients_hold_the_rows_of_targets_and_samples_only():
    module, (h, target) = layer(), examples()
    sample, _ = copy.deepcopy(module).draw()
    module(h, target).backward()
    touched = sorted({*target.tolist(), *sample.tolist()})
    for parameter in (module.weight, module.bias):
        assert parameter.grad.is_sparse
        assert parameter.grad.coalesce().indices().flatten().tolist() == touched


def test_padding_never_counts():
    module, (h, target) = layer(), examples()
    alone = copy.deepcopy(module)(h[:5], target[:5])
    target[5:] = -100
    torch.testing.assert_close(module(h, target), alone)


def test_every_step_has_a_sample_of_its_own_and_a_resumed_run_the_same():
    module = layer()
    module.draw()
    resumed = layer(seed=2)
    resumed.load_state_dict(module.state_dict())
    first, second = [module.draw()[0].tolist() for _ in range(2)]
    assert first != second
    assert [resumed.draw()[0].tolist() for _ in range(2)] == [first, second]


def test_seeds_differ_and_repeat():
    assert layer().position == layer().position != layer(seed=2).position


def test_the_loss_is_float32_under_autocast():
    module, (h, target) = layer(dtype=torch.float32), examples(torch.float32)
    expected = copy.deepcopy(module)(h, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module(h, target)
    assert loss.dtype == torch.float32
    assert loss == expected


def test_half_precision_layers_compute_in_float32():
    module, (h, target) = layer(dtype=torch.bfloat16), examples(torch.bfloat16)
    expected = copy.deepcopy(module).float()(h.float(), target)
    loss = module(h, target)
    loss.backward()
    assert loss == expected
    assert module.weight.grad.dtype == torch.bfloat16


def test_likelihoods_are_those_of_the_full_softmax():
    module, (h, target) = layer(), examples()
    expected = F.cross_entropy(h @ module.weight.T + module.bias, target, reduction="sum")
    torch.testing.assert_close(module.nll(h, target), expected.detach())


class Operations(TorchDispatchMode):
    """Notes which operations are carried out."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_nothing_leaves_the_device():
    module, (h, target) = layer(), examples()
    with Operations() as operations:
        module(h.requires_grad_(), target).backward()
    assert "log1p" in operations.names
    read_a_value_or_have_no_fixed_shape = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim"}
    assert not operations.names & read_a_value_or_have_no_fixed_shape
    with Operations() as operations:
        bool(target.unique()[0] == 0)
    assert operations.names >= {"_local_scalar_dense", "_unique2"}


@pytest.mark.parametrize("num_samples", [0, WORDS])
def test_more_samples_than_words_are_refused(num_samples):
    with pytest.raises(
        UsageError, match=f"num_samples={num_samples}: give fewer than .*, a whole number from 1 to {WORDS - 1}"
    ):
        SampledSoftmaxLoss(HIDDEN, WORDS, num_samples)
