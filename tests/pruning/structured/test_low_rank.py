import pytest
import torch
from minima import minimise
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured import LowRank
from sparse_rnn.pruning.structured.low_rank import factors
from sparse_rnn.recurrent import ResetBeforeGRU


@pytest.fixture
def model(kind, tagger):
    if kind.startswith("projected"):
        pytest.skip("has a product for its recurrent kernel already")
    return tagger(kind)


def test_kernels_have_the_rank_and_train_as_products(model, x):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    low = LowRank(rank=3).factorise(model, x)
    assert torch.linalg.matrix_rank(low.rnn.weight_hh_l0) <= 3
    assert sum(p.numel() for p in low.parameters()) < sum(p.numel() for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    output = low(x)
    output.square().mean().backward()
    torch.optim.SGD(low.parameters(), lr=0.1).step()
    assert not torch.equal(low(x), output)


def test_with_the_full_rank_nothing_changes(model, x):
    for reconstruct in (True, False):
        low = LowRank(rank=8, reconstruct=reconstruct).factorise(model, x)
        torch.testing.assert_close(low(x), model(x), rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_a_layer_with_a_projection_is_refused():
    with pytest.raises(UsageError, match="has a projection, which makes a product of its recurrent kernel already"):
        LowRank(rank=0.5, reconstruct=False).factorise(nn.LSTM(3, 8, proj_size=4))


def test_the_product_is_the_best_one_in_its_norm():
    generator = torch.Generator().manual_seed(0)
    kernel, h = (torch.randn(*shape, generator=generator).double() for shape in ((12, 6), (100, 6)))
    h[:, :3] *= 10
    moment = h.T @ h / 100

    def loss(matrix):
        return ((h @ (kernel - matrix).T).square().sum(1)).mean()

    plain, weighed = (left @ right for left, right in (factors(kernel, 2), factors(kernel, 2, moment)))
    u, s, v = torch.linalg.svd(kernel, full_matrices=False)
    torch.testing.assert_close(plain, (u[:, :2] * s[:2]) @ v[:2])
    assert loss(weighed) < loss(plain)
    # Eckart and Young: what is lost is the rest of the singular values of W S, Σ = S Sᵀ.
    values = torch.linalg.svdvals(kernel @ torch.linalg.cholesky(moment))
    torch.testing.assert_close(loss(weighed), values[2:].square().sum())


def smallest_loss(kernel, rank, parts, seed):
    """The smallest loss summed over the parts that a numerical search for V finds; the best U for it is known."""
    start = torch.randn(rank, kernel.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    right = start.requires_grad_()

    def loss():
        total = 0
        for rows, moment in parts:
            read = kernel[rows] @ moment @ right.T
            explained = (torch.linalg.solve(right @ moment @ right.T, read.T).T * read).sum()
            total += (kernel[rows] @ moment * kernel[rows]).sum() - explained
        return total

    exact = {"max_iter": 3000, "tolerance_grad": 1e-13, "tolerance_change": 1e-15, "line_search_fn": "strong_wolfe"}
    return minimise(loss, [right], **exact)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_gates_that_read_different_things_lose_the_least_together(rank):
    torch.manual_seed(rank)
    rnn, x = ResetBeforeGRU(3, 6).double(), torch.randn(12, 30, 3).double()
    with torch.no_grad():
        for parameter in rnn.parameters():
            parameter.mul_(3)
        weight, (r, z, n) = rnn.weight_hh_l0, rnn.weight_hh_l0.view(3, 6, 6)
        h, states, resets = torch.zeros(30, 6).double(), [], []
        for step in x:
            a = (step @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + rnn.bias_hh_l0).view(-1, 3, 6)
            resets.append((a[:, 0] + h @ r.T).sigmoid() * h)
            z_now = (a[:, 1] + h @ z.T).sigmoid()
            h = (1 - z_now) * (a[:, 2] + resets[-1] @ n.T).tanh() + z_now * h
            states.append(h)
        torch.testing.assert_close(torch.stack(states), rnn(x)[0])
        read = [(slice(0, 12), torch.cat(states)), (slice(12, 18), torch.cat(resets))]
        parts = [(rows, values.T @ values / len(values)) for rows, values in read]
        low = LowRank(rank).factorise(rnn, x)
        rest = weight - low.weight_hh_l0
        lost = sum((values @ rest[rows].T).square().sum(1).mean() for rows, values in read).item()
        assert torch.linalg.matrix_rank(low.weight_hh_l0, rtol=1e-9) == rank
    best = min(smallest_loss(weight.detach(), rank, parts, seed) for seed in range(5))
    assert lost == pytest.approx(best, rel=1e-5)


def test_ranks_that_do_not_fit_and_missing_data_are_refused():
    with pytest.raises(UsageError, match="needs data"):
        LowRank(rank=2).factorise(nn.GRU(3, 4))
    with pytest.raises(UsageError, match="rank=9 for GRU: give a number from 1 to 4"):
        LowRank(rank=9).factorise(nn.GRU(3, 4), torch.randn(2, 1, 3))
