"""The second order of weights, which one sequence reads."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_rnn.engine.library import library
from sparse_rnn.engine.windows import LANES, MOST_BYTES_OF_A_WEIGHT, ROWS, UNITS, WIDTH, windows_of

pytestmark = [
    pytest.mark.skipif(
        library() is None or not library().reads_windows(), reason="No kernels for this processor read windows."
    ),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]
NAMES = ("rnn_tanh", "rnn_relu", "gru", "lstm", "projected_lstm", "peephole_lstm", "diagonal_peephole_lstm")
INPUTS, HIDDEN = 70, 150


def windows(layer):
    [[weights]] = layer._layers()
    found = weights.one_sequence._found
    return [] if found is None else list(found.windows)


@pytest.fixture
def layer(pruned, sparse):
    return sparse(pruned("lstm", INPUTS, HIDDEN))


@settings(max_examples=60)
@given(data=st.data())
def test_one_sequence_is_computed_as_the_dense_layer_does(pruned, sparse, data):
    kind = data.draw(st.sampled_from(NAMES))
    inputs, units = data.draw(st.integers(1, 200)), data.draw(st.integers(2, 200))
    density = data.draw(st.sampled_from([0.0, 0.03, 0.1, 0.25, 1.0]))
    dense = pruned(kind, inputs, units, density, bias=data.draw(st.booleans()))
    x = torch.randn(data.draw(st.integers(1, 4)), 1, inputs)
    with torch.no_grad():
        (found, states), (wanted, last) = sparse(dense)(x), dense(x)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states, last, atol=1e-5, rtol=1e-5)


def test_the_rows_of_a_kernel_lose_no_weight_and_each_is_read_from_its_column(layer):
    layer(torch.randn(1, 1, INPUTS))
    _, own = windows(layer)
    offsets, columns, values = layer.offsets_hh_l0, layer.columns_hh_l0, layer.values_hh_l0
    rows = torch.repeat_interleave(offsets.diff())
    wanted = torch.zeros(4 * HIDDEN, HIDDEN)
    wanted[rows.long(), columns.long()] = values
    found = torch.zeros_like(wanted)
    for group, (begin, end) in enumerate(zip([0, *own.ends[:-1]], own.ends, strict=True)):
        for window in range(begin, end):
            for step in range(2):
                for lane in range(LANES):
                    place = int(own.places[window, step, lane])
                    if place >= WIDTH:
                        spot = int(own.sums[group, lane + (LANES if place < 2 * WIDTH else 0)])
                        row = (group // 4 * UNITS + spot % UNITS) * 4 + spot // UNITS
                        column = int(own.starts[window]) + place % WIDTH
                        found[row, column] += own.values[window, step, lane]
    assert own.sums.shape[1] == ROWS
    assert torch.equal(found, wanted)


def test_results_are_the_same_bit_for_bit_whatever_the_number_of_threads(pruned, sparse, kind):
    layer, x = sparse(pruned(kind, INPUTS, HIDDEN)), torch.randn(5, 1, INPUTS)
    results = []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        results += [layer(x)[0], layer(x)[0]]
    assert windows(layer)
    assert all(torch.equal(results[0], other) for other in results)


CHANGES = {
    "in place": lambda layer: layer.values_hh_l0.mul_(2),
    "by a state dict": lambda layer: layer.load_state_dict(
        {name: tensor * 2 if name.startswith("values") else tensor for name, tensor in layer.state_dict().items()}
    ),
    "by another tensor": lambda layer: setattr(layer, "values_hh_l0", layer.values_hh_l0 * 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change_are_those_that_are_read(layer, change):
    x = torch.randn(5, 1, INPUTS)
    before = layer(x)[0]
    CHANGES[change](layer)
    several = layer(x.expand(-1, 2, -1))[0][:, :1]
    torch.testing.assert_close(layer(x)[0], several, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(before, several, atol=1e-3)


def test_weights_of_inference_mode_may_change_unseen_and_have_no_windows(pruned, sparse):
    with torch.inference_mode():
        layer, x = sparse(pruned("lstm", INPUTS, HIDDEN)), torch.randn(5, 1, INPUTS)
        layer.values_hh_l0 = layer.values_hh_l0.clone()
        before = layer(x)[0]
        layer.values_hh_l0.mul_(2)
        assert not windows(layer)
        assert not torch.allclose(layer(x)[0], before, atol=1e-3)


def test_they_are_made_in_the_first_call_with_one_sequence_and_count_as_bytes(layer):
    buffers = sum(buffer.nbytes for buffer in layer.buffers())
    layer(torch.randn(1, 2, INPUTS))
    assert layer.nbytes == buffers == layer.bytes_read(1)
    layer(torch.randn(1, 1, INPUTS))
    own = sum(one.nbytes for one in windows(layer))
    assert layer.nbytes == buffers + own
    assert own > 4 * len(layer.values_hh_l0)
    assert layer.bytes_read(2) == buffers
    assert own < layer.bytes_read(1) < layer.nbytes


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_and_pickles_are_without_them(layer, copied):
    x = torch.randn(3, 1, INPUTS)
    wanted = layer(x)[0]
    other = copied(layer)
    assert other.nbytes < layer.nbytes
    assert other.state_dict().keys() == layer.state_dict().keys()
    assert torch.equal(other(x)[0], wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8, torch.float64])
def test_other_types_have_none(pruned, sparse, dtype):
    layer = sparse(pruned("lstm", INPUTS, HIDDEN).to(torch.float64 if dtype == torch.float64 else torch.float32), dtype)
    layer(torch.randn(2, 1, INPUTS, dtype=layer.real))
    assert not windows(layer)


@pytest.mark.parametrize("strange", [torch.inf, torch.nan])
def test_a_strange_number_reaches_the_rows_alone_that_read_it(pruned, sparse, strange):
    layer = sparse(pruned("rnn_relu", INPUTS, HIDDEN))
    x = torch.randn(1, 1, INPUTS)
    x[..., 3] = strange
    reached = ~layer(x)[0].flatten().isfinite()
    assert windows(layer)
    several = ~layer(x.expand(-1, 2, -1))[0][0, 0].isfinite()
    assert torch.equal(reached, several)
    assert 0 < int(reached.sum()) < HIDDEN


def test_other_backends_read_the_rows(layer, backends):
    x = torch.randn(4, 1, INPUTS)
    wanted = layer(x)[0]
    for backend in backends:
        assert library().select(backend.encode())
        torch.testing.assert_close(layer(x)[0], wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "density", "some"), [(WIDTH - 1, 0.1, False), (70, 0.005, False), (70, 0.1, True), (70, 0.9, False)]
)
def test_kernels_that_gain_nothing_or_would_be_larger_than_dense_have_none(pruned, sparse, inputs, density, some):
    layer = sparse(pruned("rnn_tanh", inputs, HIDDEN, density))
    own = windows_of(layer.values_ih_l0, layer.offsets_ih_l0, layer.columns_ih_l0, (0,), inputs)
    assert (own is not None) == some
    if own is not None:
        assert own.places.nbytes + own.values.nbytes <= MOST_BYTES_OF_A_WEIGHT * len(layer.values_ih_l0)


def test_a_call_keeps_what_it_points_to_whatever_others_find_meanwhile(layer):
    layer(torch.randn(1, 1, INPUTS))
    [[weights]] = layer._layers()
    call = weights.one_sequence.constant(weights, INPUTS)
    kept = [weakref.ref(one) for one in windows(layer)]
    weights.one_sequence._found = None  # as when another thread finds others
    gc.collect()
    assert len(kept) == 2
    assert all(one() is not None for one in kept)
    del call
    gc.collect()
    assert all(one() is None for one in kept)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_default_type_changes_nothing(layer, dtype):
    x = torch.randn(5, 1, INPUTS)
    expected, sizes = layer(x)[0], [one.nbytes for one in windows(layer)]
    layer.values_hh_l0.add_(0)  # so that they are found anew
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(layer(x)[0], expected)
        assert [one.nbytes for one in windows(layer)] == sizes
    finally:
        torch.set_default_dtype(torch.float32)
