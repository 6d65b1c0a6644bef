"""Networks with the structure of a graph: masks against its edges, and the forward against a loop."""

import copy
import pickle

import networkx as nx
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sparse_rnn.errors import UsageError
from sparse_rnn.modules import SequenceClassifier, StructuredRNN
from sparse_rnn.sparsity.graphs import LayeredGraph, random_graph

CELLS = {"rnn": 1, "gru": 3, "gru_reset_before": 3, "lstm": 4, "peephole_lstm": 4}
GRAPH = random_graph("watts_strogatz", 14, seed=3, k=4, p=0.8)


def parts(rnn, target, source):
    """The weights of one recurrent layer of the network: [gates, units, inputs], [gates, units, units], biases."""
    found, layer = LayeredGraph.of(GRAPH), rnn.layers[target]
    sources, size = found.sources(target) or [None], found.sizes[target]
    at = sources.index(source)
    begin = sum(found.sizes[s] for s in sources[:at]) if target else 0
    width = found.sizes[source] if target else rnn.input_size
    ih = layer.weight_ih_l0.unflatten(0, (-1, len(sources), size))[:, at, :, begin : begin + width]
    hh = layer.weight_hh_l0.unflatten(0, (-1, len(sources), size))[:, at, :, at * size : (at + 1) * size]
    biases = [b.unflatten(0, (-1, len(sources), size))[:, at] for b in (layer.bias_ih_l0, layer.bias_hh_l0)]
    return ih, hh, *biases


@pytest.mark.parametrize("cell", CELLS)
def test_a_weight_is_where_an_arc_is_in_every_gate(cell):
    rnn, found = StructuredRNN(GRAPH, cell), LayeredGraph.of(GRAPH)
    arcs = recurrent = 0
    for target in range(1, len(found.layers)):
        for source in found.sources(target):
            ih, hh, *_ = parts(rnn, target, source)
            for gate in ih:
                for i, v in enumerate(found.layers[target]):
                    for j, u in enumerate(found.layers[source]):
                        assert bool(gate[i, j] != 0) == (GRAPH.has_edge(u, v) and u < v)
            arcs += int(ih.count_nonzero())
            recurrent += hh.numel()
    assert arcs == CELLS[cell] * GRAPH.number_of_edges()
    above = rnn.layers[1:]
    assert sum(int(layer.weight_ih_l0.count_nonzero()) for layer in above) == arcs
    assert sum(int(layer.weight_hh_l0.count_nonzero()) for layer in above) == recurrent
    assert rnn.layers[0].weight_ih_l0.all()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_repeated_masks_are_those_of_the_thesis(cell):
    rnn, found = StructuredRNN(GRAPH, cell, gate_masks="repeated"), LayeredGraph.of(GRAPH)
    for target in range(1, len(found.layers)):
        for source in found.sources(target):
            ih, *_ = parts(rnn, target, source)
            row_by_row = [row for row in found.mask(source, target) for _ in range(CELLS[cell])]
            assert torch.equal(ih.flatten(0, 1) != 0, torch.stack(row_by_row))


def step(cell, nonlinearity, weights, x, h, c):
    ih, hh, b, d = weights
    a = [(ih[g] @ x + b[g], hh[g] @ h + d[g]) for g in range(len(ih))]
    if cell == "rnn":
        total = sum(a[0])
        return (torch.tanh(total) if nonlinearity == "tanh" else total.clamp(min=0)), c
    if cell.startswith("gru"):
        r, z = torch.sigmoid(sum(a[0])), torch.sigmoid(sum(a[1]))
        of_state = r * a[2][1] if cell == "gru" else hh[2] @ (r * h) + d[2]
        return (1 - z) * torch.tanh(a[2][0] + of_state) + z * h, c
    i, f, o = (torch.sigmoid(sum(a[g])) for g in (0, 1, 3))
    c = f * c + i * torch.tanh(sum(a[2]))
    return o * torch.tanh(c), c


@pytest.mark.parametrize(
    ("cell", "nonlinearity"),
    [("rnn", "tanh"), ("rnn", "relu"), ("gru", "tanh"), ("gru_reset_before", "tanh"), ("lstm", "tanh")],
)
def test_the_forward_is_that_of_a_recurrent_layer_for_each_pair_of_layers(cell, nonlinearity):
    torch.manual_seed(0)
    rnn, found = StructuredRNN(GRAPH, cell, 3, nonlinearity).double(), LayeredGraph.of(GRAPH)
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    expected = []
    for sequence in x:
        outputs = []
        for target, size in enumerate(found.sizes):
            total = torch.zeros(len(sequence), size, dtype=torch.float64)
            for source in found.sources(target) or [None]:
                h = c = torch.zeros(size, dtype=torch.float64)
                for t, read in enumerate(outputs[source] if target else sequence):
                    h, c = step(cell, nonlinearity, parts(rnn, target, source), read, h, c)
                    total[t] += h
            outputs.append(total)
        expected.append(outputs[-1])
    output, state = rnn(x)
    torch.testing.assert_close(output, torch.stack(expected))
    torch.testing.assert_close(rnn.last_output(state), output[:, -1])
    first, between = rnn(x[:, :4])
    second, _ = rnn(x[:, 4:], between)
    torch.testing.assert_close(torch.cat([first, second], dim=1), output)


@pytest.mark.parametrize("cell", CELLS)
def test_packed_sequences_end_at_their_own_last_steps(cell):
    rnn = StructuredRNN(GRAPH, cell, 3)
    x, lengths = torch.randn(3, 7, 3), torch.tensor([4, 7, 1])
    packed, state = rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    output, _ = pad_packed_sequence(packed, batch_first=True)
    for sample, length in enumerate(lengths):
        alone, _ = rnn(x[sample : sample + 1, :length])
        torch.testing.assert_close(output[sample, :length], alone[0])
        torch.testing.assert_close(rnn.last_output(state)[sample], alone[0, -1])


def assigned(rnn):
    rnn.load_state_dict({name: value + 1 for name, value in rnn.state_dict().items()}, assign=True)
    return rnn


def frozen_meanwhile(rnn):
    return copy.deepcopy(rnn.requires_grad_(False)).requires_grad_()


def zeros_hold(rnn):
    return all(not rnn.get_parameter(name)[~mask].any() for name, mask in rnn.masks.items())


@pytest.mark.each_value
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.ASGD, torch.optim.RMSprop])
@pytest.mark.parametrize(
    "copied", [lambda rnn: rnn, copy.deepcopy, lambda rnn: pickle.loads(pickle.dumps(rnn)), assigned, frozen_meanwhile]
)
def test_what_is_no_arc_stays_zero_in_any_training(optimizer, copied):
    rnn = copied(StructuredRNN(GRAPH, "gru", 3))
    stepping = optimizer(rnn.parameters(), lr=0.1)
    before = rnn.layers[1].weight_ih_l0.detach().clone()
    for _ in range(3):
        stepping.zero_grad()
        rnn(torch.randn(4, 5, 3))[0].square().sum().backward()
        assert not any(rnn.get_parameter(name).grad[~mask].any() for name, mask in rnn.masks.items())
        stepping.step()
        assert zeros_hold(rnn)
    assert not torch.equal(before, rnn.layers[1].weight_ih_l0)


def test_weights_that_are_loaded_are_masked():
    rnn = StructuredRNN(GRAPH, "gru", 3)
    rnn.load_state_dict({name: torch.ones_like(value) for name, value in rnn.state_dict().items()})
    assert zeros_hold(rnn)
    assert all(rnn.get_parameter(name)[mask].all() for name, mask in rnn.masks.items())


@pytest.mark.parametrize("init", ["uniform", "orthogonal", "glorot", "torch"])
def test_each_part_is_initialised_by_itself(init):
    rnn = StructuredRNN(nx.path_graph(3), "gru", 2)
    rnn.init_(init)
    assert zeros_hold(rnn)
    rnn = StructuredRNN(GRAPH, "gru", 3)
    rnn.init_(init, update_bias=0.5)
    found = LayeredGraph.of(GRAPH)
    for target in range(1, len(found.layers)):
        size = found.sizes[target]
        for source in found.sources(target):
            _, hh, b, _ = parts(rnn, target, source)
            if init == "orthogonal":
                torch.testing.assert_close(hh @ hh.transpose(1, 2), torch.eye(size).expand(3, size, size))
            if init == "torch":
                assert hh.abs().max() <= size**-0.5
            assert b[1].eq(0.5).all()


def test_a_classifier_takes_a_structure_and_keeps_it_in_its_hyperparameters():
    structure = {"family": "watts_strogatz", "nodes": 14, "seed": 3, "k": 4, "p": 0.8}
    model = SequenceClassifier(128, 2, "lstm", embedding_size=5, structure=structure, init="torch")
    assert isinstance(model.rnn, StructuredRNN)
    x = torch.randint(128, (4, 9))
    lengths = torch.tensor([9, 3, 5, 1])
    for sample, length in enumerate(lengths):
        torch.testing.assert_close(model(x, lengths)[sample], model(x[sample : sample + 1, :length])[0])
    again = SequenceClassifier(**model.hparams)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(x), model(x))


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match="bidirectional"):
        SequenceClassifier(4, 2, structure={"family": "ring", "nodes": 5, "k": 2}, bidirectional=True)
    with pytest.raises(UsageError, match="gate_masks"):
        StructuredRNN(GRAPH, gate_masks="tile")
    assert isinstance(StructuredRNN(GRAPH, "rnn").layers[0], nn.RNN)


def test_gradients_that_are_not_finite_are_zero_where_there_is_no_arc():
    rnn = StructuredRNN(GRAPH)
    weight, mask = rnn.layers[1].weight_ih_l0, rnn.masks["layers.1.weight_ih_l0"]
    (weight * torch.where(mask, 1.0, torch.inf)).sum().backward()
    assert torch.equal(weight.grad, mask.float())
