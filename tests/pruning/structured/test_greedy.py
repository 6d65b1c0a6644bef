import pytest
import torch
from reconstructed import lost
from torch import nn

from sparse_rnn.pruning.structured.greedy import greedy_choice


def trained_like_states(seed=0, units=12):
    """The states of a recurrent network that reads noise, whose units depend on each other as those of networks do."""
    torch.manual_seed(seed)
    rnn = nn.RNN(3, units)
    with torch.no_grad():
        return rnn(torch.randn(30, 40, 3))[0].flatten(0, 1).double()


def problem(seed=0, units=12):
    h = trained_like_states(seed, units)
    weight = torch.randn(5, units, dtype=torch.float64)
    return h.T @ h / len(h), weight


def loss(moment, weight, kept, tau):
    kept = torch.as_tensor(kept)
    return lost(moment, kept, tau) + lost(moment, kept, tau, weight)


@pytest.mark.parametrize("tau", [0.0, 1e-6, 0.1])
def test_each_unit_is_the_one_that_refitting_everything_would_take(tau):
    moment, weight = problem()
    eye = torch.eye(12).double()
    pairs = [(moment, eye + weight.T @ weight)]
    chosen = greedy_choice(pairs, 8, tau).tolist()
    for n in range(8):
        losses = {j: loss(moment, weight, [*chosen[:n], j], tau) for j in range(12) if j not in chosen[:n]}
        assert losses[chosen[n]] <= min(losses.values()) * (1 + 1e-6)
    assert torch.equal(greedy_choice([(moment, eye), (moment, weight.T @ weight)], 8, tau), torch.tensor(chosen))


def test_different_moments_are_weighed_against_each_other():
    first = torch.diag(torch.tensor([3.0, 1.0, 0.0]))
    second = torch.diag(torch.tensor([0.0, 1.0, 5.0]))
    assert greedy_choice([(first, torch.eye(3)), (second, torch.eye(3))], 2, 0.0).tolist() == [2, 0]
    assert greedy_choice([(first, torch.eye(3)), (second, torch.eye(3) / 10)], 2, 0.0).tolist() == [0, 1]


def test_dead_and_dependent_units_come_last_and_only_once():
    h = torch.randn(100, 3, dtype=torch.float64)
    h = torch.cat([torch.zeros(100, 2), h, h], dim=1)
    chosen = greedy_choice([(h.T @ h / 100, torch.eye(8).double())], 8, 0.0).tolist()
    assert sorted(chosen) == list(range(8))
    assert {unit % 3 for unit in chosen[:3]} == {0, 1, 2}
    assert not {0, 1} & set(chosen[:3])
