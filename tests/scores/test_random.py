"""Random scores: from the global generator, uniform, independent."""

import pytest
import torch
from torch import nn

from sparse_rnn import Random, prune
from sparse_rnn.isolation import seeded
from sparse_rnn.recurrent.kernels import find_targets

NAMES = ["weight_hh_l0", "weight_ih_l0"]


def scores(rnn, seed, names=NAMES):
    with seeded(seed):
        return Random().score(rnn, None, None, names)


def test_the_global_generator_gives_the_scores_in_the_order_of_the_names():
    rnn = nn.GRU(3, 4)
    found = scores(rnn, 5)
    generator = torch.Generator().manual_seed(5)
    for name in NAMES:
        assert torch.equal(found[name], torch.rand(rnn.get_parameter(name).shape, generator=generator))


def test_the_weights_and_their_type_have_no_part_in_it():
    torch.manual_seed(1)
    one, other = nn.GRU(3, 4), nn.GRU(3, 4).half()
    first, second = scores(one, 0), scores(other, 0)
    assert all(torch.equal(first[name], second[name]) for name in NAMES)
    assert any(not torch.equal(first[name], scores(one, 1)[name]) for name in NAMES)


def test_scores_are_uniform_from_0_to_1():
    score = scores(nn.GRU(100, 100), 0)["weight_hh_l0"]
    assert score.min() >= 0
    assert score.max() < 1
    shares = torch.histc(score, bins=10, min=0, max=1) / score.numel()
    # A share of 0.1 of 30,000 has a standard deviation of 0.0017.
    assert (shares - 0.1).abs().max() < 0.009


@pytest.mark.parametrize("allocation", ["global", "per_gate"])
def test_every_weight_is_equally_likely_to_stay(allocation):
    counts = 0
    for seed in range(200):
        rnn = nn.GRU(2, 3)
        masks = prune(rnn, None, sparsity=0.5, criterion="random", seed=seed, allocation=allocation)
        counts = counts + torch.cat([mask.flatten().double() for mask in masks.values()])
    # The mean of 200 coins has a standard deviation of 0.035.
    assert (counts / 200 - 0.5).abs().max() < 0.17


def test_it_scores_what_is_no_recurrent_kernel():
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Linear(4, 5))
    found = Random().score(model, None, None, find_targets(model, ["*"]))
    assert {name: tuple(score.shape) for name, score in found.items()} == {"0.weight": (3, 2, 2), "1.weight": (5, 4)}
