import pytest
import torch
from minima import minimise
from reconstructed import lost

from sparse_rnn.pruning.structured.reconstruction import degrees_of_freedom, information_loss, reconstruction

UNITS = 12


def states(rank=UNITS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(rank, UNITS, generator=generator, dtype=torch.float64)
    return torch.randn(500, rank, generator=generator, dtype=torch.float64) @ basis


def second(h):
    return h.T @ h / len(h)


@pytest.mark.parametrize("tau", [0.0, 0.3, torch.tensor([0.1, 0.2, 0.0, 4.0])])
def test_it_is_the_minimum_that_a_numerical_search_finds(tau):
    h, kept = states(), torch.tensor([1, 5, 6, 10])
    matrix = torch.zeros(UNITS, 4, dtype=torch.float64, requires_grad=True)

    def loss():
        penalty = (matrix.square() * torch.as_tensor(tau)).sum()
        return (h - h[:, kept] @ matrix.T).square().sum(1).mean() + penalty

    least = minimise(loss, [matrix], tolerance_change=1e-14)
    torch.testing.assert_close(reconstruction(second(h), kept, tau), matrix.detach(), rtol=1e-5, atol=1e-5)
    assert lost(second(h), kept, tau) == pytest.approx(least, rel=1e-8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_it_never_loses_more_than_the_selection(seed, weighted):
    moment = second(states(seed=seed))
    weight = torch.randn(5, UNITS, generator=torch.Generator().manual_seed(seed)).double() if weighted else None
    kept = torch.randperm(UNITS, generator=torch.Generator().manual_seed(seed))[: 2 + seed]
    read = torch.eye(UNITS).double() if weight is None else weight
    left_out = [unit for unit in range(UNITS) if unit not in kept]
    selection = (read[:, left_out] @ moment[left_out][:, left_out] @ read[:, left_out].T).trace()
    for tau in (0.0, 1e-6):
        assert lost(moment, kept, tau, weight) <= selection + 1e-5


def test_the_loss_is_that_of_the_states_themselves():
    h, kept = states(), torch.tensor([0, 3, 7])
    rest = h - h[:, kept] @ reconstruction(second(h), kept).T
    assert information_loss(second(h), kept) == pytest.approx(rest.square().sum(1).mean())


def test_units_that_depend_on_each_other_are_given_back_as_they_are():
    moment = second(states(rank=4))
    kept = torch.arange(8)
    matrix = reconstruction(moment, kept)
    assert torch.equal(matrix[:8], torch.eye(8).double())
    assert information_loss(moment, kept) == pytest.approx(0, abs=1e-8)


def test_a_regularisation_that_is_lost_in_rounding_is_as_good_as_none():
    moment = torch.ones(3, 3, dtype=torch.float64)
    matrix = reconstruction(moment, torch.tensor([0, 1]), 1e-17)
    torch.testing.assert_close(matrix, torch.full((3, 2), 0.5, dtype=torch.float64))


def test_degrees_of_freedom_count_the_large_eigenvalues():
    moment = second(states(rank=3))
    freedom, leverage = degrees_of_freedom(moment, 1e-9)
    assert freedom == pytest.approx(3, abs=1e-4)
    assert leverage.sum() == pytest.approx(1)
    eigenvalues = torch.linalg.eigvalsh(moment)
    freedom, leverage = degrees_of_freedom(moment, 0.5)
    assert freedom == pytest.approx((eigenvalues / (eigenvalues + 0.5)).sum().item())
    assert degrees_of_freedom(torch.zeros(4, 4), 0.5)[1].tolist() == [0.25] * 4


def test_units_drawn_by_leverage_lose_what_the_theorem_allows():
    # L_A <= 4 λ for k >= 5 N(λ) log(80 N(λ) / δ), τ_j = λ k q_j; here with far fewer units than it asks for.
    moment, regularisation = second(states(rank=3)), 0.01
    freedom, leverage = degrees_of_freedom(moment, regularisation)
    for seed in range(20):
        kept = torch.multinomial(leverage, 8, generator=torch.Generator().manual_seed(seed))
        tau = regularisation * 8 * leverage[kept]
        assert lost(moment, kept, tau) <= 4 * regularisation * freedom
