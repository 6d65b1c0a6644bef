"""What both of our modules take and refuse; what they compute is tested beside each of them."""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

BOTH = pytest.mark.parametrize("kind", [PeepholeLSTM, ResetBeforeGRU])


@BOTH
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size=0: give a whole number of at least 1"),
        ({"num_layers": 1.5}, r"num_layers=1\.5: give a whole number from 1 to 100000"),
        ({"dropout": -0.5}, r"dropout=-0\.5: give a probability"),
    ],
)
def test_bad_arguments_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**{"input_size": 3, "hidden_size": 4, **options})


@BOTH
def test_dropout_without_effect_is_told_to_who_asked_for_it(kind):
    with pytest.warns(UserWarning, match="has no effect with num_layers=1") as told:
        kind(3, 4, dropout=0.5)
    assert told[0].filename == __file__


@BOTH
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3), "input has 1 dimensions; it must have 3, or 2 without a batch"),
        (torch.zeros(5, 2, 9), "input has 9 features; the layer's input_size is 3"),
        (torch.zeros(0, 2, 3), "input has no time step"),
        (torch.zeros(5, 2, 3).double(), r"input is torch\.float64, the weights are torch\.float32"),
        (pack_sequence([torch.zeros(2, 9)]), "input has 9 features"),
    ],
)
def test_bad_inputs_are_refused(kind, x, message):
    with pytest.raises(ValueError, match=message):
        kind(3, 4)(x)


@BOTH
def test_parameters_are_drawn_anew(kind):
    rnn = kind(3, 4, bias=False)
    before = rnn.weight_hh_l0.clone()
    rnn.reset_parameters()
    assert not torch.equal(before, rnn.weight_hh_l0)
    assert rnn.weight_hh_l0.abs().max() <= 0.5
    assert all(name.startswith("weight") for name, _ in rnn.named_parameters())


@pytest.mark.parametrize("sizes", [[2, 2], [1, 2], [2, 1, 1], [3, 0]])
def test_batch_sizes_that_do_not_fit_the_rows_are_refused(sizes):
    packed = PackedSequence(torch.randn(3, 5), torch.tensor(sizes))
    for build in (PeepholeLSTM, ResetBeforeGRU):
        with pytest.raises(UsageError, match=r"batch_sizes .* for 3 rows: make it with pack_padded_sequence"):
            build(5, 7)(packed)
