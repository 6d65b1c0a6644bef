import math
from itertools import islice

import pytest
import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.modules.generation import Sampling, continuation, evaluating

LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0, 1.5], dtype=torch.float64)


def drawn(count=5_000, **options):
    sampling, generator = Sampling(**options), torch.Generator().manual_seed(0)
    return torch.tensor([sampling.draw(LOGITS, generator) for _ in range(count)])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_the_softmax_says(temperature):
    shares = drawn(temperature=temperature).bincount(minlength=5) / 5_000
    expected = (LOGITS / temperature).softmax(0)
    # Five standard deviations of a binomial share.
    assert ((shares - expected).abs() < 5 * (expected * (1 - expected) / 5_000).sqrt()).all()


def test_top_k_draws_from_the_most_probable_and_without_from_what_is_left():
    assert set(drawn(500, top_k=2).tolist()) == {1, 4}
    assert set(drawn(500, top_k=2, without=(1, 0)).tolist()) == {4, 2}
    assert set(drawn(500, without=(1, 4)).tolist()) == {0, 2, 3}
    assert set(drawn(500, top_k=100).tolist()) == set(range(5))


def test_temperature_0_is_greedy_draws_nothing_and_is_the_limit_of_small_ones():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert Sampling(temperature=0, without=(1,)).draw(LOGITS, generator) == 4
    assert torch.equal(generator.get_state(), before)
    assert set(drawn(50, temperature=1e-300).tolist()) == {1}
    assert Sampling(temperature=1e-46).draw(LOGITS.float(), torch.Generator()) == 1


@pytest.mark.parametrize("options", [{"temperature": -0.1}, {"temperature": math.nan}, {"top_k": 0}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match=f"{next(iter(options))}="):
        Sampling(**options)


def test_a_vocabulary_with_nothing_left_is_refused():
    with pytest.raises(UsageError, match="Every token"):
        Sampling(without=tuple(range(5))).draw(LOGITS, torch.Generator())


def test_the_prompt_is_read_once_and_every_token_from_the_state_before():
    read = []

    def step(x, state):
        read.append((x.tolist(), state))
        return LOGITS, len(read)

    found = list(islice(continuation(step, [7, 8, 9], Sampling(), 3, "cpu"), 4))
    assert read == [([[7, 8, 9]], None), ([[found[0]]], 1), ([[found[1]]], 2), ([[found[2]]], 3)]


def test_a_seed_decides_and_the_global_generator_stands_still():
    before = torch.get_rng_state()
    texts = [
        list(islice(continuation(lambda *_: (LOGITS, None), [0], Sampling(), seed, "cpu"), 30)) for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_each_module_gets_its_own_mode_back():
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False]
