import itertools

import pytest
import torch
from reconstructed import lost
from torch import nn

from sparse_rnn.pruning.structured.exchange import exchanged
from sparse_rnn.pruning.structured.greedy import greedy_choice


def problem(seed):
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(200, 12, generator=generator).double() @ torch.randn(12, 12, generator=generator).double()
    weight = torch.randn(5, 12, generator=generator).double()
    return h.T @ h / len(h), weight


@pytest.mark.parametrize("tau", [0.0, 1e-6, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_an_exchange_is_the_best_of_all_pairs(seed, tau):
    moment, weight = problem(seed)
    pairs = [(moment, torch.eye(12).double()), (moment, weight.T @ weight)]

    def loss(kept):
        kept = torch.tensor(kept)
        return lost(moment, kept, tau) + lost(moment, kept, tau, weight)

    start = [0, 1, 2, 3]
    best = min(
        ([other if n == place else unit for n, unit in enumerate(start)] for place, other in
         itertools.product(range(4), range(4, 12))),
        key=loss,
    )  # fmt: skip
    found = exchanged(pairs, torch.tensor(start), tau, exchanges=1).tolist()
    assert found == (best if loss(best) < loss(start) else start)
    settled = exchanged(pairs, torch.tensor(start), tau, exchanges=100)
    assert loss(settled.tolist()) <= loss(found)
    assert torch.equal(exchanged(pairs, settled, tau, exchanges=1), settled)


def states_of_a_network(seed):
    """Whose units depend on each other as those of networks do."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return nn.RNN(3, 12)(torch.randn(30, 40, 3))[0].flatten(0, 1).double()


@pytest.mark.parametrize("units", [3, 6])
def test_after_the_greedy_choice_the_loss_is_within_a_few_per_cent_of_the_best_subset(units):
    ratios = []
    for seed in range(6):
        h = states_of_a_network(seed)
        moment = h.T @ h / len(h)
        weight = torch.randn(5, 12, dtype=torch.float64)
        pairs = [(moment, torch.eye(12).double() + weight.T @ weight)]

        def loss(kept, moment=moment, weight=weight):
            kept = torch.as_tensor(kept)
            return lost(moment, kept, 1e-6) + lost(moment, kept, 1e-6, weight)

        chosen = exchanged(pairs, greedy_choice(pairs, units, 1e-6), 1e-6, exchanges=10)
        ratios.append(loss(chosen) / min(map(loss, itertools.combinations(range(12), units))))
    assert sum(ratios) / len(ratios) < 1.03
    assert max(ratios) < 1.1


@pytest.mark.parametrize("seed", range(10))  # whether what depends on each other does so exactly, rounding decides
def test_none_is_made_where_nothing_is_lost_or_none_is_asked_for(seed):
    h = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    h = torch.cat([h, h], dim=1)
    pairs = [(h.T @ h / 50, torch.eye(4).double())]
    assert exchanged(pairs, torch.tensor([0, 2]), 0.0, 5).tolist() == [0, 2]  # they depend on each other
    assert exchanged(pairs, torch.tensor([0, 1]), 0.0, 5).tolist() == [0, 1]
    assert exchanged(pairs, torch.tensor([0, 2]), 1e-3, 0).tolist() == [0, 2]
