"""Where new tensors go and of which type they are by default changes nothing: each goes where its data are."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from sparse_rnn.modules import LanguageModel
from sparse_rnn.pruning.structured import (
    ColumnSparsification,
    Exact,
    LowRank,
    RandomUnits,
    Spectral,
    UnitMagnitude,
    shrink,
)
from sparse_rnn.pruning.structured.group_lasso import group_lasso
from sparse_rnn.recurrent import ResetBeforeGRU
from sparse_rnn.torch_compat import tree_leaves


class Model(nn.Module):
    """Has units that both directions of a layer read, and kernels whose gates read different things."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.RNN(3, 8), ResetBeforeGRU(8, 8, bidirectional=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.high(self.low(x)[0])[0])


@contextmanager
def double():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture(params=["meta", "float64"])
def default(request):
    return torch.device("meta") if request.param == "meta" else double()


@pytest.fixture
def model():
    model = Model()
    with torch.no_grad():  # a unit that nothing reads, and one that is constant, in each layer
        model.low.weight_hh_l0[:, 1] = model.high.weight_ih_l0[:, 1] = model.high.weight_ih_l0_reverse[:, 1] = 0
        model.low.weight_ih_l0[2] = model.low.weight_hh_l0[2] = model.low.weight_hh_l0[:, 2] = 0
        for way in ("", "_reverse"):
            model.high.get_parameter(f"weight_hh_l0{way}")[:, 4:6] = 0
        model.head.weight[:, [4, 5, 12, 13]] = 0
    return model


def check_equal(actual, expected):
    for one, other in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


X = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "criterion",
    [
        Spectral(4),
        Spectral(4, choice="leverage"),
        Spectral(4, regularisation=0.0),
        UnitMagnitude(4),
        ColumnSparsification(4, reconstruct=False),
        RandomUnits(4),
        Exact(),
    ],
    ids=lambda criterion: type(criterion).__name__,
)
@pytest.mark.parametrize("readers", [None, {"high": ["head"]}], ids=["seen", "declared"])
def test_plans_and_smaller_models_are_the_same(model, criterion, readers, default):
    plan = criterion.plan(model, X, readers=readers)
    with default:
        other = criterion.plan(model, X, readers=readers)
        small = shrink(model, other)
    assert plan.removed > 0
    check_equal(other.state_dict(), plan.state_dict())
    check_equal(small.state_dict(), shrink(model, plan).state_dict())


def test_products_and_groups_are_the_same(model, default):
    low, norms = LowRank(3).factorise(model, X), [lasso.norms() for lasso in group_lasso(model, X)]
    with default:
        other, lassos = LowRank(3).factorise(model, X), group_lasso(model, X)
        assert all(torch.equal(lasso.norms(), norm) for lasso, norm in zip(lassos, norms, strict=True))
        for lasso in lassos:
            lasso.step_(0.1)
    check_equal(other.state_dict(), low.state_dict())
    for lasso, norm in zip(lassos, norms, strict=True):
        torch.testing.assert_close(lasso.norms(), (norm - 0.1).clamp(min=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_identity_before_a_tied_decoder_becomes_the_same_layer(dtype, default):
    model = LanguageModel(9, embedding_size=8, embedding="tied", hidden_size=8).to(dtype)
    tokens = torch.arange(18).view(6, 3) % 9

    def plan():
        return Spectral(5).plan(model, tokens, lambda m, x: m.decoder.nll(m(x)[0].flatten(0, 1), x.flatten()))

    expected = shrink(model, plan())
    with default:
        small = shrink(model, plan())
    check_equal(small.state_dict(), expected.state_dict())
    assert small.to_embedding.weight.dtype == dtype
    weight = plan()["rnn.0.l0"].readers[-1].reconstruction
    assert torch.equal(small.to_embedding.weight, weight.to(dtype))  # in float64, too, as it was computed
