"""SNIP against central differences, in float64."""

import pytest
import torch

from sparse_rnn import SNIP
from sparse_rnn.recurrent.kernels import find_targets


@pytest.mark.parametrize("kind", ["rnn", "gru", "gru_reset_before", "lstm", "peephole_lstm"])
def test_snip_is_weight_times_gradient(kind, build, loss_fn, kernels, central_differences):
    model, batch = build(kind)
    scores = SNIP().score(model, batch, loss_fn, find_targets(model))
    assert scores.keys() == kernels(model).keys()
    for name, parameter in kernels(model).items():
        with torch.no_grad():
            gradient = central_differences(parameter, lambda: loss_fn(model, batch)).view_as(parameter)
            expected = (parameter * gradient).abs()
        torch.testing.assert_close(scores[name], expected, rtol=1e-6, atol=1e-9)


def test_the_scores_of_a_linear_loss_are_what_removing_each_weight_would_change(build):
    """Of Σ w x, a step to w = 0 changes the loss by exactly w·∂L/∂w."""
    model, batch = build("gru")
    x = torch.randn(7, 3, dtype=torch.float64)

    def linear(model, batch):
        return model.head(x).sum()

    scores = SNIP().score(model, batch, linear, find_targets(model, ["head.weight"]))["head.weight"]
    full = linear(model, batch)
    for i in range(3):
        for j in range(3):
            kept = model.head.weight[i, j].item()
            model.head.weight.data[i, j] = 0
            torch.testing.assert_close(scores[i, j], (full - linear(model, batch)).abs().detach())
            model.head.weight.data[i, j] = kept


def test_an_unknown_gamma_is_refused():
    with pytest.raises(ValueError, match="gamma='off': choose one of sequence, author, none"):
        SNIP(gamma="off")
