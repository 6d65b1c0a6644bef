"""Sequences of different lengths against PyTorch's packing and against loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

from sparse_rnn.recurrent.packing import (
    align_first,
    align_last,
    pack_like,
    reading_order,
    running,
    sequence_order,
    unpack,
)

batches = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def sequences(lengths):
    """Sequences with another number at every place."""
    numbers = torch.arange(1.0, 1 + 2 * sum(lengths)).view(-1, 2)
    return list(numbers.split(lengths))


def padded(parts, last=False, fill=0.0):
    """A loop over sequences of two features, aligned at the first or the last step."""
    steps = max(map(len, parts))
    x_TBI = torch.full((steps, len(parts), 2), fill)
    for b, part in enumerate(parts):
        x_TBI[slice(steps - len(part), None) if last else slice(len(part)), b] = part
    return x_TBI


def same_where_it_counts(actual, expected, lengths, last=False):
    begun = running(len(expected), torch.tensor(lengths)).squeeze(-1)
    counts = begun if last else begun.flip(0)
    assert torch.equal(actual[counts], expected[counts])


@given(batches)
def test_what_was_packed_comes_out_aligned_at_the_first_step(lengths):
    parts = sequences(lengths)
    x_TBI, found = unpack(pack_sequence(parts, enforce_sorted=False))
    assert found.tolist() == lengths
    assert torch.equal(x_TBI, padded(parts))


@given(batches, st.booleans())
def test_packing_like_another_is_packing_alike(lengths, enforce_sorted):
    lengths = sorted(lengths, reverse=True) if enforce_sorted else lengths
    parts = sequences(lengths)
    packed = pack_sequence(parts, enforce_sorted=enforce_sorted)
    other = padded(parts, fill=float("nan"))[..., :1] * 10
    actual = pack_like(packed, other, torch.tensor(lengths))
    expected = pack_padded_sequence(other, torch.tensor(lengths), enforce_sorted=enforce_sorted)
    for part, wanted in zip(actual, expected, strict=True):
        assert (part is None) == (wanted is None)
        assert part is None or torch.equal(part, wanted)


@given(batches)
def test_sequences_move_so_that_they_end_together_and_back(lengths):
    parts, sizes = sequences(lengths), torch.tensor(lengths)
    first, last = padded(parts), padded(parts, last=True)
    same_where_it_counts(align_last(first, sizes), last, lengths, last=True)
    same_where_it_counts(align_first(last, sizes), first, lengths)
    same_where_it_counts(align_first(align_last(first, sizes), sizes), first, lengths)


@given(batches, st.booleans())
def test_all_readings_end_together_and_outputs_go_back_to_where_their_inputs_were(lengths, reverse):
    parts, sizes = sequences(lengths), torch.tensor(lengths)
    read = [part.flip(0) for part in parts] if reverse else parts
    ordered = reading_order(padded(parts), sizes, reverse)
    same_where_it_counts(ordered, padded(read, last=True), lengths, last=True)
    same_where_it_counts(sequence_order(ordered, sizes, reverse), padded(parts), lengths)


@pytest.mark.parametrize("reverse", [False, True])
def test_sequences_of_one_length_need_no_moving(reverse):
    x_TBI = padded(sequences([4, 4]))
    expected = x_TBI.flip(0) if reverse else x_TBI
    for order in (reading_order, sequence_order):
        assert torch.equal(order(x_TBI, None, reverse), expected)
        assert torch.equal(order(x_TBI, torch.tensor([4, 4]), reverse), expected)


def test_a_sequence_has_begun_once_as_many_steps_are_left_as_it_has():
    begun = running(3, torch.tensor([1, 3, 2]))
    assert begun.squeeze(-1).tolist() == [[False, True, False], [False, True, True], [True, True, True]]


def test_gradients_go_to_the_steps_that_were_moved():
    x_TBI = padded(sequences([1, 3])).requires_grad_()
    align_last(x_TBI, torch.tensor([1, 3]))[2].sum().backward()
    assert x_TBI.grad.sum(-1).tolist() == [[2, 0], [0, 0], [0, 2]]
