"""Which criteria look at data."""

import copy

import pytest
import torch
from torch import nn

from sparse_rnn import Graph, prune
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


@pytest.mark.parametrize("criterion", ["random", "graph", "jacobian"])
def test_masks_are_the_same_whatever_the_default_device_and_type(criterion):
    def masks():
        torch.manual_seed(0)
        return prune(gru, x, sparsity=0.5, criterion=criterion)

    if criterion == "graph":
        criterion = Graph("watts_strogatz", k=2, p=0.5)
    gru, x = torch.nn.GRU(3, 8), torch.randn(5, 4, 3)
    start = copy.deepcopy(gru.state_dict())
    expected = masks().digest()
    gru.load_state_dict(start)
    try:
        torch.set_default_dtype(torch.float64)
        assert masks().digest() == expected
    finally:
        torch.set_default_dtype(torch.float32)
    gru.load_state_dict(start)
    if criterion != "jacobian":  # whose layers run on the data's device, and PyTorch's own code on the default one
        with torch.device("meta"):
            assert masks().digest() == expected
