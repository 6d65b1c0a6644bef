import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from sparse_rnn.engine import ops, pattern
from sparse_rnn.engine.library import library, warn_not_built

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
@settings(max_examples=40, derandomize=True)
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
@pytest.mark.parametrize("batch", [1, 3, 20])
def test_gradients_are_those_of_finite_differences(case, kind, batch):
    own = case(kind, [2] * batch, inputs=2, units=3, density=0.5, dtype=torch.float64)
    leaves = {name: tensor.requires_grad_() for name, tensor in own.leaves(torch.float64).items()}

    def run(*tensors):
        return ops.layer(*own.arguments(dict(zip(leaves, tensors, strict=True))))[: 1 + len(own.state)]

    assert torch.autograd.gradcheck(run, tuple(leaves.values()), fast_mode=True)


def leaf(argument):
    """Cuts the numbers of an argument off from what they were computed from."""
    if isinstance(argument, list):
        return [leaf(own) for own in argument]
    is_real = isinstance(argument, torch.Tensor) and argument.is_floating_point()
    return argument.detach().requires_grad_() if is_real else argument


@pytest.mark.parametrize("kind", KINDS)
def test_the_operator_keeps_the_rules_of_operators(case, kind):
    own = case(kind, [3, 2], inputs=2, units=3, density=0.5)
    arguments = [leaf(argument) for argument in own.arguments(own.leaves(torch.float32))]
    # The other check compares all outputs of two calls, and what is kept for the backward pass has unused parts.
    torch.library.opcheck(
        ops.layer, arguments, test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
    )


@pytest.mark.parametrize("kind", ["gru", "projected_lstm", "diagonal_peephole_lstm"])
def test_what_is_compiled_gives_the_same(case, kind):
    torch.compiler.reset()
    own = case(kind, [3, 2, 2], inputs=2, units=5, density=0.5)
    arguments = [leaf(argument) for argument in own.arguments(own.leaves(torch.float32))]

    def run(x, values):
        return ops.layer(arguments[0], x, *arguments[2:7], values, *arguments[8:])[:2]

    found = []
    for function in (run, torch.compile(run, backend="aot_eager", fullgraph=True, dynamic=True)):
        leaves = [tensor.detach().requires_grad_() for tensor in (arguments[1], *arguments[7])]
        results = function(leaves[0], leaves[1:])
        found.append([*results, *torch.autograd.grad(sum(part.sum() for part in results), leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_backward_pass_needs_is_found_when_it_was_not_given(case, close, kind):
    own = case(kind, RAGGED, inputs=4, units=20)
    close(own.by_engine(blocks=False), own.by_engine(), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_backward_pass_gives_the_same(case, kind):
    own = case(kind, RAGGED, inputs=4, units=20)
    leaves = own.leaves(torch.float32)
    loss = sum(part.square().sum() for part in ops.layer(*own.arguments(leaves))[: 1 + len(own.state)])
    first = torch.autograd.grad(loss, leaves.values(), retain_graph=True)
    second = torch.autograd.grad(loss, leaves.values())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_gradients_of_the_last_states_alone(case, close):
    own = case("lstm", RAGGED, inputs=4, units=20, dtype=torch.float64)
    for index in range(3):
        found, wanted = (
            dict(zip(leaves, torch.autograd.grad(run(leaves)[index].sum(), leaves.values()), strict=True))
            for run, leaves in (
                (lambda leaves: ops.layer(*own.arguments(leaves)), own.leaves(torch.float64)),
                (own.operations, own.leaves(torch.float64)),
            )
        )
        close(found, wanted, 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_kept_where_no_gradient_is_wanted(case, kind):
    own = case(kind, RAGGED, inputs=4, units=20)
    with torch.no_grad():
        trained = ops.layer(*own.arguments(own.leaves(torch.float32)))
        found = ops.layer(*own.arguments(own.leaves(torch.float32), training=False))
    assert found[3].numel() == 0
    torch.testing.assert_close(found[:3], trained[:3], rtol=0, atol=1e-6)


def test_gradients_are_refused_where_nothing_is_kept_for_them(case):
    own = case("gru", RAGGED, inputs=4, units=20)
    with pytest.raises(RuntimeError, match="not told to keep"):
        ops.layer(*own.arguments(own.leaves(torch.float32), training=False))


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


def test_types_that_the_kernels_would_misread_are_refused(case):
    own = case("gru", [2], inputs=2, units=3, density=1.0)
    arguments = list(own.arguments(own.leaves(torch.float32)))
    for index, wrong in ((1, torch.bfloat16), (1, torch.float64), (2, torch.float64), (4, torch.float64)):
        changed = [*arguments]
        changed[index] = changed[index].to(wrong)
        with pytest.raises(RuntimeError):
            ops.layer(*changed)
    first, *others = arguments[7]
    arguments[7] = [first.bfloat16(), *others]
    with pytest.raises(RuntimeError, match="of one type"):
        ops.layer(*arguments)
    arguments[7] = [own.bfloat16() for own in [first, *others]]
    with pytest.raises(RuntimeError, match="8 and 16 bits"):
        ops.layer(*arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_without_kernels_torch_computes_the_same(case, close, monkeypatch, kind):
    own = case(kind, RAGGED, inputs=4, units=20, dtype=torch.float64)
    wanted = own.by_torch()
    for module in (ops, pattern):
        monkeypatch.setattr(module, "library", lambda: None)
    monkeypatch.setattr(ops, "warn_not_built", lambda: None)
    close(own.by_engine(), wanted, 1e-10)


def test_without_kernels_one_sentence_says_what_to_do(case, monkeypatch):
    own = case("gru", [2], inputs=2, units=3)
    warn_not_built.cache_clear()
    monkeypatch.setattr(ops, "library", lambda: None)
    with pytest.warns(UserWarning, match="install a C compiler"):
        own.by_engine()
    own.by_engine()


def test_a_trace_on_a_device_keeps_nothing_for_the_backward_pass(case):
    own = case("lstm", RAGGED, inputs=3, units=7)
    arguments = own.arguments(own.leaves(torch.float32))
    with FakeTensorMode(allow_non_fake_inputs=True):

        def moved(argument):
            if isinstance(argument, list):
                return [moved(own) for own in argument]
            if not isinstance(argument, torch.Tensor) or argument.dtype == torch.int64:
                return argument
            return torch.empty(argument.shape, dtype=argument.dtype, device="cuda")

        out, h_n, c_n, kept = ops.layer(*map(moved, arguments))
    assert {tensor.device.type for tensor in (out, h_n, c_n, kept)} == {"cuda"}
    assert [tensor.shape for tensor in (out, h_n, c_n, kept)] == [(sum(RAGGED), 7), (6, 7), (6, 7), (0,)]
