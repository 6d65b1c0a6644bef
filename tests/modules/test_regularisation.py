import pytest
import torch

from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel, VariationalDropout
from sparse_rnn.modules.regularisation import activation_penalty, feature_dropout


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 1.0), (0.5, 0.0), (0.0, 3.0)])
def test_the_penalty_is_that_of_loops(alpha, beta):
    raw, dropped = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    size = sum(float(value) ** 2 for value in dropped.flatten()) / dropped.numel()
    changes = [float(raw[b, t + 1, d] - raw[b, t, d]) ** 2 for b in range(3) for t in range(4) for d in range(4)]
    expected = alpha * size + beta * sum(changes) / len(changes)
    assert activation_penalty(raw, dropped, alpha, beta).item() == pytest.approx(expected)


def test_one_step_has_no_change():
    h = torch.ones(2, 1, 3)
    assert activation_penalty(h, h, 2.0, 1.0).item() == 2.0


def test_a_place_has_its_own_dropout_or_that_of_all():
    assert feature_dropout(False, 0.5).p == 0.5
    own = feature_dropout(True, 0.5, 0.0)
    assert isinstance(own, VariationalDropout)
    assert own.p == 0.0


@pytest.mark.parametrize("name", ["dropout", "input_dropout", "hidden_dropout", "embedding_dropout", "weight_drop"])
def test_what_is_no_probability_is_refused(name):
    with pytest.raises(UsageError, match=f"^{name}=1.5: give a probability"):
        LanguageModel(9, **{name: 1.5})


@pytest.mark.parametrize("name", ["alpha", "beta", "embedding_scale"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_what_is_no_factor_is_refused(name, value):
    with pytest.raises(UsageError, match=rf"^{name}={value}: give a number in \[0, inf\)"):
        LanguageModel(9, **{name: value})
