"""Where the rows of packed sequences lie, against lists of their steps and sequences."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence

from sparse_rnn.recurrent.packed_rows import (
    add_to_last_,
    copied,
    last_rows,
    last_states,
    previous_states,
    refuse_second_derivative,
    reversal,
    steps_of,
)

batch_sizes = st.lists(st.integers(1, 4), min_size=1, max_size=6).map(lambda sizes: sorted(sizes, reverse=True))


@given(batch_sizes)
def test_rows_are_packed_step_by_step(sizes):
    """Of each step: where its gates lie, what it reads and writes; and where each sequence is at its end."""
    batch, steps = sizes[0], steps_of(sizes)
    states = [(-1, b) for b in range(batch)]  # (step, sequence) of every row: the initial states, then the steps'
    gates = []
    for t, size in enumerate(sizes):
        gates += [(t, b) for b in range(size)]
    states += gates
    for t, (rows, read, write) in enumerate(steps):
        assert gates[rows] == [(t, b) for b in range(sizes[t])]
        assert states[read] == [(t - 1, b) for b in range(sizes[t])]
        assert states[write] == [(t, b) for b in range(sizes[t])]
    last = [row for rows in last_rows(sizes) for row in states[rows]]
    assert last == [(sum(size > b for size in sizes) - 1, b) for b in range(batch)]
    buffer = torch.tensor([[10.0 * t + b] for t, b in states])
    assert last_states(buffer, sizes).flatten().tolist() == [10.0 * t + b for t, b in last]
    before = [10.0 * (t - 1) + b for t, b in gates]
    assert previous_states(buffer, sizes).flatten().tolist() == before
    added = buffer.clone()
    add_to_last_(added, torch.ones(batch, 1), sizes)
    assert {states[row] for row in (added - buffer).flatten().nonzero().flatten().tolist()} == set(last)


@given(batch_sizes)
def test_a_reversal_turns_each_sequence_round(sizes):
    lengths = [sum(size > b for size in sizes) for b in range(sizes[0])]
    sequences = [torch.arange(length) + 10 * b for b, length in enumerate(lengths)]
    rows, turned = (pack_sequence(given_).data for given_ in (sequences, [s.flip(0) for s in sequences]))
    assert torch.equal(rows[reversal(sizes)], turned)
    assert torch.equal(turned[reversal(sizes)], rows)


def test_an_output_is_a_copy():
    buffer = torch.zeros(3, 4)
    copied(buffer[1:, :2]).fill_(1)
    assert not buffer.any()


def test_a_second_derivative_is_refused_where_a_graph_is_recorded():
    with pytest.raises(RuntimeError, match="SomeLayer can be differentiated only once"):
        refuse_second_derivative("SomeLayer")
    with torch.no_grad():
        refuse_second_derivative("SomeLayer")
