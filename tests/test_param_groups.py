"""What an optimizer holds is told in its own order, and by its own groups."""

import torch
from torch import nn

from sparse_rnn.param_groups import options_of, parameters_of


def two_groups():
    layer, other = nn.Linear(3, 2), nn.Linear(2, 1)
    groups = [{"params": [other.bias, layer.weight], "lr": 0.5}, {"params": [layer.bias, other.weight]}]
    return groups, torch.optim.Adam(groups, lr=0.1)


def test_parameters_are_counted_as_the_state_counts_them():
    _, optimizer = two_groups()
    parameters = parameters_of(optimizer)
    sum(parameter.sum() * place for place, parameter in enumerate(parameters, 1)).backward()
    optimizer.step()
    averages = [state["exp_avg"] for _, state in sorted(optimizer.state_dict()["state"].items())]
    assert len(parameters) == 4
    assert all(average is optimizer.state[own]["exp_avg"] for average, own in zip(averages, parameters, strict=True))


def test_several_optimizers_follow_each_other_and_none_has_nothing():
    (_, one), (_, two) = two_groups(), two_groups()
    both = parameters_of(one, two)
    assert [id(parameter) for parameter in both] == [id(p) for p in parameters_of(one) + parameters_of(two)]
    assert parameters_of() == []


def test_options_are_those_in_force():
    groups, optimizer = two_groups()
    options = options_of(optimizer)
    assert [options[parameter]["lr"] for parameter in parameters_of(optimizer)] == [0.5, 0.5, 0.1, 0.1]
    optimizer.param_groups[1]["lr"] = 0.01
    assert options[groups[1]["params"][0]]["lr"] == 0.01
