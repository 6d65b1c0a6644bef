"""Magnitude looks at no data."""

import torch
from torch import nn

from sparse_rnn import Magnitude
from sparse_rnn.recurrent import find_targets


def test_scores_need_no_batch():
    model = nn.GRU(3, 4)
    names = find_targets(model)
    torch.manual_seed(3)
    scores = Magnitude().score(model, None, None, names)
    assert not Magnitude.needs_data
    assert {name: score.shape for name, score in scores.items()} == {name: names[name].shape for name in names}
    for name, parameter in model.named_parameters():
        if name in names:
            assert torch.equal(scores[name], parameter.abs())
