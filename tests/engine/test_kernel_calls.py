"""What the kernels in C compute is what torch does, whatever the processor, the threads and the numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_rnn.engine import ops
from sparse_rnn.engine.library import library

KINDS = ["rnn_tanh", "rnn_relu", "gru", "lstm", "projected_lstm", "peephole_lstm", "diagonal_peephole_lstm"]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
RAGGED = [7, 5, 5, 4, 2, 1]
needs_kernels = pytest.mark.skipif(library() is None, reason="the kernels are not built")


def on_each_backend(backends):
    """Selects each backend in turn; without kernels there is one, torch's operations."""
    if not backends:
        yield "torch"
    for backend in backends:
        assert library().select(backend.encode())
        yield backend


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, derandomize=True)
@given(data=st.data())
def test_results_and_gradients_are_torchs(case, backends, close, kind, data):
    longest = data.draw(st.integers(1, 7), "longest")
    batch = data.draw(st.integers(1, 70), "batch")
    ragged = data.draw(st.booleans(), "ragged")
    lengths = [1 + (17 * i) % longest for i in range(batch)] if ragged else [longest] * batch
    own = case(
        kind,
        lengths,
        inputs=data.draw(st.integers(1, 40), "inputs"),
        units=data.draw(st.integers(2 if kind == "projected_lstm" else 1, 70), "units"),
        density=data.draw(st.sampled_from([0.0, 0.03, 0.2, 1.0]), "density"),
        bias=data.draw(st.booleans(), "bias"),
        reverse=data.draw(st.booleans(), "reverse"),
        dtype=data.draw(st.sampled_from(list(TOLERANCE)), "dtype"),
    )
    wanted = own.by_torch()
    for _ in on_each_backend(backends):
        close(own.by_engine(), wanted, TOLERANCE[own.dtype])


@pytest.mark.each_value
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 4, 70])
@needs_kernels
def test_results_are_the_same_bit_for_bit_whatever_the_number_of_threads(case, backends, kind, batch):
    own = case(kind, [5] * (batch - batch // 2) + [3] * (batch // 2), inputs=9, units=50)
    for _ in on_each_backend(backends):
        first = None
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            found = own.by_engine()
            first = first or found
            assert all(torch.equal(found[name], first[name]) for name in first)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_backward_pass_needs_is_found_when_it_was_not_given(case, close, kind):
    own = case(kind, RAGGED, inputs=4, units=20)
    close(own.by_engine(blocks=False), own.by_engine(), 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strange", [float("nan"), float("inf"), float("-inf")])
def test_strange_numbers_spread_as_in_torch(case, backends, kind, strange):
    own = case(kind, [4, 4, 4], inputs=5, units=18, density=1.0)
    own.sequences[1][2, 3] = strange
    wanted = own.by_torch()
    for _ in on_each_backend(backends):
        found = own.by_engine()
        for name in ("out", "h_n"):
            torch.testing.assert_close(
                found[name].double(), wanted[name].double(), rtol=1e-5, atol=1e-5, equal_nan=True
            )


def test_activations_are_good_to_a_millionth_everywhere(case, backends):
    """A unit without recurrent weights is the function of its gate: tanh of an RNN, z of a GRU with n = 0 and h = 1."""
    x = torch.cat([torch.linspace(-110, 110, 40_001), torch.linspace(-9, 9, 40_001), torch.logspace(-30, 0, 1001)])
    x = torch.cat([x, torch.tensor([0.0, -0.0, 3e38, -3e38])])
    none = torch.tensor([0, 0], dtype=torch.int32), torch.empty(0, dtype=torch.uint16)
    one = torch.tensor([0, 1], dtype=torch.int32), torch.zeros(1, dtype=torch.uint16)
    z_alone = torch.tensor([0, 0, 1, 1], dtype=torch.int32)
    rows, starts, lengths = x.unsqueeze(1), torch.tensor([0]), torch.ones(len(x), dtype=torch.int64)
    value, nothing = torch.ones(1), torch.empty(0)
    for _ in on_each_backend(backends):
        offsets, columns = [one[0], none[0]], [one[1], none[1]]
        out, *_ = ops.layer("rnn_tanh", rows, torch.zeros(len(x), 1), None, None, None, "ih hh", [value, nothing],
                            offsets, columns, [], [], starts, lengths, False, False)  # fmt: skip
        torch.testing.assert_close(out.double().squeeze(1), x.double().tanh(), rtol=1e-6, atol=0)
        offsets = [z_alone, torch.zeros(4, dtype=torch.int32)]
        out, *_ = ops.layer("gru", rows, torch.ones(len(x), 1), None, None, None, "ih hh", [value, nothing], offsets,
                            columns, [], [], starts, lengths, False, False)  # fmt: skip
        torch.testing.assert_close(out.double().squeeze(1), x.double().sigmoid(), rtol=1e-6, atol=1e-37)


def test_rows_that_do_not_lie_side_by_side_are_read_right(case, close):
    own = case("lstm", [3, 3], inputs=4, units=6)
    leaves = own.leaves(torch.float32)
    arguments = list(own.arguments(leaves))
    wanted = ops.layer(*arguments)
    strided = leaves["x"].detach().t().contiguous().t().requires_grad_()
    arguments[1], arguments[2] = strided, arguments[2].t().contiguous().t()
    found = ops.layer(*arguments)
    assert torch.equal(found[0], wanted[0])
    ours, theirs = (
        torch.autograd.grad(results[0].square().sum(), x) for results, x in ((found, strided), (wanted, leaves["x"]))
    )
    assert torch.equal(ours[0], theirs[0])
