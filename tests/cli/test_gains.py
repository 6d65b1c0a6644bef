import re

import pytest
import torch
from torch import nn

from sparse_rnn import Magnitude, prune
from sparse_rnn.cli.gains import gains
from sparse_rnn.engine import compact


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.low, self.high, self.step = nn.LSTM(40, 60), nn.GRU(60, 50), nn.GRUCell(50, 40)


@pytest.fixture
def pruned():
    torch.manual_seed(0)
    net = Net()
    return net, prune(net, None, sparsity=0.95, criterion=Magnitude(), kernels=["*"])


def test_sizes_are_those_of_the_layers_that_are_exported(pruned):
    net, masks = pruned
    said = gains(net, masks, batch=7)
    small = compact(
        nn.ModuleList([net.low, net.high]),
        {name.replace("low", "0").replace("high", "1"): mask for name, mask in masks.items() if "step" not in name},
    )
    sparse = sum(layer.nbytes for layer in small)
    dense = sum(parameter.nbytes for layer in (net.low, net.high) for parameter in layer.parameters())
    assert said["size"] == f"{sparse / 1e3:,.0f} kB of recurrent layers as exported, {dense / 1e3:,.0f} kB dense"


def test_speeds_are_ratios_for_one_sequence_and_a_batch(pruned):
    said = gains(*pruned, batch=7)["speed"]
    one, many = re.fullmatch(r"([\d.]+) times that .* for one sequence, ([\d.]+) times for 7 \(.*\)", said).groups()
    assert 0.05 < float(one) < 100
    assert 0.05 < float(many) < 100


def test_the_network_stays_as_it_is(pruned):
    net, masks = pruned
    before = {name: value.clone() for name, value in net.state_dict().items()}
    gains(net, masks, batch=2)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_without_a_layer_to_compare_nothing_is_said():
    net = nn.GRUCell(9, 20)
    assert gains(net, prune(net, None, sparsity=0.9, criterion=Magnitude()), batch=2) == {}


def test_at_batch_size_1_layers_count_once():
    net = nn.Sequential(nn.GRU(40, 60))
    masks = prune(net, None, sparsity=0.95, criterion="magnitude")
    assert gains(net, masks, 1)["size"] == gains(net, masks, 2)["size"]
