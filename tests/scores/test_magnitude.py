"""Magnitude: |w| of what is asked for, and no data."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_rnn import Magnitude, prune
from sparse_rnn.recurrent.kernels import find_targets


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.LSTM(3, 8, num_layers=2), nn.Linear(8, 2))


@settings(max_examples=30)
@given(st.floats(0, 0.99))
def test_magnitude_keeps_the_largest_weights(sparsity):
    pruned, dense = model(), model()
    masks = prune(pruned, None, sparsity=sparsity, criterion=Magnitude())
    left = torch.cat([dense.get_parameter(name)[mask].abs() for name, mask in masks.items()])
    gone = torch.cat([dense.get_parameter(name)[~mask].abs() for name, mask in masks.items()])
    assert len(left) == round((1 - sparsity) * masks.total)
    assert not len(gone) or not len(left) or gone.max() <= left.min()
    assert all(torch.equal(pruned.get_parameter(n), dense.get_parameter(n) * mask) for n, mask in masks.items())


@pytest.mark.parametrize("names", [["0.weight_hh_l1"], ["1.weight", "0.weight_ih_l0"]])
def test_scores_are_sizes_of_the_weights_asked_for(names):
    module = model()
    for of in (names, find_targets(module, names)):
        scores = Magnitude().score(module, None, None, of)
        assert set(scores) == set(names)
        for name, score in scores.items():
            assert torch.equal(score, module.get_parameter(name).abs())
            assert not score.requires_grad


def test_scores_do_not_change_when_the_weights_do():
    module = model()
    scores = Magnitude().score(module, None, None, ["1.weight"])
    before = scores["1.weight"].clone()
    nn.init.zeros_(module[1].weight)
    assert torch.equal(scores["1.weight"], before)
    assert before.count_nonzero()


def test_a_weight_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"no weight '1\.bias' that can be pruned, only 0\.weight_ih_l0"):
        Magnitude().score(model(), None, None, ["1.bias"])
