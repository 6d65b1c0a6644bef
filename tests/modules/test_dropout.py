import pytest
import torch

from sparse_rnn.errors import UsageError
from sparse_rnn.modules import VariationalDropout, WordDropout

BATCH, STEPS, SIZE = 8, 5, 500


def dropped(p: float) -> torch.Tensor:
    torch.manual_seed(0)
    return VariationalDropout(p)(torch.ones(BATCH, STEPS, SIZE))


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_a_feature_is_kept_at_all_steps_or_at_none(p):
    y = dropped(p)
    assert torch.equal(y, y[:, :1].expand_as(y))
    torch.testing.assert_close(y.unique(), torch.tensor([0, 1 / (1 - p)]))
    kept = (y[:, 0] != 0).float().mean().item()
    assert kept == pytest.approx(1 - p, abs=5 * (p * (1 - p) / (BATCH * SIZE)) ** 0.5)  # five deviations


def test_sequences_and_calls_have_masks_of_their_own():
    y = dropped(0.5)
    assert len({tuple(row.tolist()) for row in y[:, 0]}) == BATCH
    dropout, x = VariationalDropout(0.5), torch.ones(BATCH, STEPS, SIZE)
    assert not torch.equal(dropout(x), dropout(x))


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_ends_drop_nothing_and_all(p):
    assert torch.equal(dropped(p), torch.full((BATCH, STEPS, SIZE), 1 - p))


def test_an_evaluation_drops_nothing_and_draws_nothing():
    x = torch.randn(BATCH, STEPS, SIZE)
    before = torch.get_rng_state()
    assert VariationalDropout(0.9).eval()(x) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_the_gradient_is_that_of_the_kept_features():
    x = torch.ones(2, STEPS, SIZE, requires_grad=True)
    y = VariationalDropout(0.5)(x)
    [gradient] = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, y.detach())


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(p):
    for kind in (VariationalDropout, WordDropout):
        with pytest.raises(UsageError, match=rf"p={p}: give a probability, a number in \[0, 1\]"):
            kind(p)


def words_dropped(p, words=400, training=True):
    """A batch in which every word stands twice, and its embeddings of ones after dropout."""
    torch.manual_seed(0)
    x = torch.randperm(2 * words).view(8, -1) % words
    embedded = torch.ones(*x.shape, 3, requires_grad=True)
    return x, embedded, WordDropout(p).train(training)(x, embedded, words)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_a_word_is_dropped_wherever_it_stands_or_nowhere(p):
    x, embedded, y = words_dropped(p)
    assert torch.equal(y, y[..., :1].expand_as(y))
    of_word = [y[x == word].unique() for word in range(400)]
    assert all(len(values) == 1 for values in of_word)
    factors = torch.cat(of_word)
    torch.testing.assert_close(factors.unique().detach(), torch.tensor([0, 1 / (1 - p)]))
    assert (factors != 0).float().mean().item() == pytest.approx(1 - p, abs=5 * (p * (1 - p) / 400) ** 0.5)
    [gradient] = torch.autograd.grad(y.sum(), embedded)
    assert torch.equal(gradient, y.detach())


def test_no_word_is_dropped_in_evaluation_or_with_p_0():
    for p, training in ((0.5, False), (0.0, True)):
        before = torch.manual_seed(0).get_state()
        _, embedded, y = words_dropped(p, training=training)
        assert y is embedded
        torch.manual_seed(0)
        torch.randperm(800)
        expected = torch.get_rng_state()
        torch.set_rng_state(before)
        words_dropped(p, training=training)
        assert torch.equal(torch.get_rng_state(), expected)
