"""Random looks at no data."""

import torch
from torch import nn

from sparse_rnn import Random
from sparse_rnn.recurrent import find_targets


def test_scores_need_no_batch():
    model = nn.GRU(3, 4)
    names = find_targets(model)
    torch.manual_seed(3)
    scores = Random().score(model, None, None, names)
    assert not Random.needs_data
    assert {name: score.shape for name, score in scores.items()} == {name: names[name].shape for name in names}
    torch.manual_seed(3)
    assert all(map(torch.equal, scores.values(), Random().score(model, None, None, names).values()))
    assert all(0 <= score.min() <= score.max() < 1 and len(score.unique()) > 1 for score in scores.values())
