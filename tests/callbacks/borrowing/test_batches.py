"""How many samples a batch holds, and what of it may be cut."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from sparse_rnn import PeepholeLSTM
from sparse_rnn.callbacks.borrowing.batches import cut, first_is_batch, is_list_of_samples, sample_count, watched
from sparse_rnn.recurrent.finding import find_recurrent

X, Y = torch.zeros(8, 20, 3), torch.zeros(8)
RAGGED = [torch.zeros(2 + i, 3) for i in range(8)]


@pytest.mark.parametrize(
    ("batch", "seen", "count"),
    [
        (X, [8], 8),
        (X, [20], 20),
        ((X, Y), [8], 8),
        ({"x": X, "y": Y}, [], 8),
        (RAGGED, [8], 8),
        ((RAGGED, list(range(8))), [8], 8),
        ({"x": X.transpose(0, 1), "y": Y}, [8], 8),
        ([X, X], [16], 8),  # the model puts them together
        ((X, torch.zeros(8, 5)), [160, 8], 8),  # words first, then texts
        (X, [160], 8),
        (X[0], [1], 1),
        (X, [1] * 8, 8),  # a call a sample
        (RAGGED, [1] * 16, 8),
        (pack_sequence(RAGGED[::-1]), [], 8),
        (X[:1], [1], 1),
    ],
)
def test_samples_are_what_the_layers_see_where_the_batch_shows_them(batch, seen, count):
    assert sample_count(batch, seen) == count


@pytest.mark.parametrize(
    ("layer", "given", "count"),
    [
        (nn.GRU(3, 4), X, 20),
        (nn.GRU(3, 4, batch_first=True), X, 8),
        (nn.GRU(3, 4), X[0], 1),
        (nn.LSTM(3, 4), pack_sequence(RAGGED[::-1]), 8),
        (nn.GRUCell(3, 4), X[:, 0], 8),
        (nn.GRUCell(3, 4), X[0, 0], 1),
        (PeepholeLSTM(3, 4, batch_first=True), X, 8),
    ],
    ids=str,
)
def test_a_layer_tells_how_many_sequences_it_gets(layer, given, count):
    seen = []
    with watched(find_recurrent(layer), seen.append):
        layer(given)
        layer(input=given)
    layer(given)
    assert seen == [count, count]


def test_only_what_is_surely_a_sample_is_cut():
    assert first_is_batch((X, Y), 8)
    assert not first_is_batch((X, Y), 20)
    assert not first_is_batch((X, [1] * 8), 8)
    assert not first_is_batch(torch.zeros(8, 8, 3), 8)
    assert not first_is_batch((X.transpose(0, 1), Y), 8)
    assert is_list_of_samples(RAGGED, 8)
    assert not is_list_of_samples([torch.zeros(2, 5), torch.zeros(2)], 2)
    assert len(cut(RAGGED, 3, as_list=True)) == 3
    x, scale = cut((X, torch.tensor(1.0)), 3, as_list=False)
    assert (len(x), scale) == (3, 1.0)
