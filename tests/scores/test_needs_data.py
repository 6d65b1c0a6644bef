"""Which criteria look at data."""

import pytest
from torch import nn

from sparse_rnn.recurrent import find_targets
from sparse_rnn.scores import criterion_named


@pytest.mark.parametrize("name", ["jacobian", "snip", "grasp", "synflow"])
def test_these_need_data(name):
    assert criterion_named(name).needs_data


@pytest.mark.parametrize("name", ["magnitude", "random"])
def test_these_score_without_a_batch(name):
    criterion, model = criterion_named(name), nn.GRU(3, 4)
    assert not criterion.needs_data
    targets = find_targets(model)
    scores = criterion.score(model, None, None, targets)
    assert {key: score.shape for key, score in scores.items()} == {key: targets[key].shape for key in targets}
