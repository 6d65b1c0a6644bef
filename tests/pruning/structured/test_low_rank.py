import pytest
import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured import LowRank
from sparse_rnn.pruning.structured.low_rank import factors


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


def test_ranks_that_do_not_fit_and_missing_data_are_refused():
    with pytest.raises(UsageError, match="needs data"):
        LowRank(rank=2).factorise(nn.GRU(3, 4))
    with pytest.raises(UsageError, match="units=9"):
        LowRank(rank=9).factorise(nn.GRU(3, 4), torch.randn(2, 1, 3))
