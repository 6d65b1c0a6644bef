from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

from sparse_rnn.engine import SparseGRU, SparseLSTM, SparsePeepholeLSTM, SparseRNN
from sparse_rnn.engine.library import library
from sparse_rnn.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
NAMES = ("rnn_tanh", "rnn_relu", "gru", "lstm", "projected_lstm", "peephole_lstm", "diagonal_peephole_lstm")


def leaves(result):
    """The outputs and last states of a call."""
    output, state = result
    return [getattr(output, "data", output), *(state if isinstance(state, tuple) else [state])]


def same(found, wanted, tolerance=1e-5):
    for own, other in zip(leaves(found), leaves(wanted), strict=True):
        assert own.shape == other.shape
        torch.testing.assert_close(own, other, atol=tolerance, rtol=tolerance)


@settings(max_examples=60)
@given(data=st.data())
def test_it_computes_what_the_dense_layer_does(pruned, sparse, data):
    kind = data.draw(st.sampled_from(NAMES))
    inputs, units = data.draw(st.integers(1, 20)), data.draw(st.integers(1 + (kind == "projected_lstm"), 40))
    options = {name: data.draw(st.booleans()) for name in ("bias", "batch_first", "bidirectional")}
    density = data.draw(st.sampled_from([0.0, 0.05, 0.5]))
    dense = pruned(kind, inputs, units, density, num_layers=data.draw(st.integers(1, 2)), **options)
    layer = sparse(dense)
    shape = [data.draw(st.integers(1, 5)), data.draw(st.integers(1, 40))]
    x = torch.randn(*(shape[::-1] if options["batch_first"] else shape), inputs)
    x = data.draw(st.sampled_from([x, x[0]]))
    with torch.no_grad():
        wanted = dense(x)
        same(layer(x), wanted)
        state = wanted[1]
        same(layer(x, state), dense(x, state))


@settings(max_examples=20)
@given(
    kind=st.sampled_from(NAMES),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=35),
    bidirectional=st.booleans(),
    given_state=st.booleans(),
)
def test_packed_sequences_are_as_the_dense_layer_s(pruned, sparse, kind, lengths, bidirectional, given_state):
    dense = pruned(kind, num_layers=2, bidirectional=bidirectional)
    packed = pack_sequence([torch.randn(length, 20) for length in lengths], enforce_sorted=False)
    with torch.no_grad():
        state = dense(packed)[1] if given_state else None
        same(sparse(dense)(packed, state), dense(packed, state))


def test_double_precision_is_kept(pruned, sparse, kind):
    dense = pruned(kind).double()
    x = torch.randn(5, 3, 20, dtype=torch.float64)
    same(sparse(dense, torch.float64)(x), dense(x), 1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 4e-3), (torch.int8, 8e-3)])
def test_short_values_are_near(pruned, sparse, kind, dtype, tolerance):
    dense = pruned(kind)
    x = torch.randn(5, 3, 20)
    with torch.no_grad():
        same(sparse(dense, dtype)(x), dense(x), tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_gradients_pass_through_it_to_what_is_below(pruned, sparse, kind, dtype):
    dense = pruned(kind, bidirectional=True)
    layer = sparse(dense, dtype)
    x = torch.randn(5, 3, 20, requires_grad=True)
    wanted, found = (torch.autograd.grad(model(x)[0].square().sum(), x)[0] for model in (dense, layer))
    torch.testing.assert_close(found, wanted, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[0], layer(x.detach().requires_grad_())[0], atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # PyTorch's own, of its first torch.func.jvp
@pytest.mark.parametrize("grad", [False, True])
def test_derivatives_beside_the_values_are_those_of_backward_passes(pruned, sparse, kind, grad):
    dense = pruned(kind, num_layers=2, bidirectional=True).double()
    layer = sparse(dense, torch.float64)
    x, v = (torch.randn(5, 3, 20, dtype=torch.float64) for _ in range(2))
    hx = dense(x)[1]
    (wanted,) = torch.autograd.functional.jvp(lambda x: layer(x, hx)[0], x, v)[1:]
    with torch.set_grad_enabled(grad):
        _, found = torch.func.jvp(lambda x: layer(x, hx)[0], (x,), (v,))
        with forward_ad.dual_level():
            also = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, v), hx)[0]).tangent
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(also, wanted, rtol=1e-10, atol=1e-10)


def test_functions_of_the_input_and_of_the_first_state_can_be_transformed(pruned, sparse):
    dense, x = pruned("gru"), torch.randn(5, 3, 20)
    layer, hx = sparse(dense), dense(x)[1].detach()
    wanted = layer(x, hx)[0]
    leaves = [x.clone().requires_grad_(), hx.clone().requires_grad_()]
    dense(*leaves)[0].square().sum().backward()
    for index, leaf in enumerate(leaves):
        found = torch.func.grad(lambda x, hx: layer(x, hx)[0].square().sum(), index)(x, hx)
        torch.testing.assert_close(found, leaf.grad)
    one_by_one = torch.func.vmap(lambda x, hx: layer(x, hx)[0], in_dims=1, out_dims=1)(x, hx)
    torch.testing.assert_close(one_by_one, wanted)


def test_a_step_at_a_time_is_the_whole_sequence(pruned, sparse, kind):
    layer = sparse(pruned(kind, num_layers=2))
    x = torch.randn(6, 1, 20)
    with torch.inference_mode():
        wanted, _ = layer(x)
        state, outputs = None, []
        for step in x:
            output, state = layer(step.unsqueeze(0), state)
            outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs), wanted, atol=1e-6, rtol=0)


def test_after_inference_mode_gradients_are_still_to_be_had(pruned, sparse):
    layer = sparse(pruned("gru"))
    with torch.inference_mode():
        layer(torch.randn(3, 2, 20))
    layer(torch.randn(3, 2, 20, requires_grad=True))[0].sum().backward()


def test_dropout_acts_between_layers_while_training(pruned, sparse):
    layer = sparse(pruned("lstm", num_layers=2, dropout=0.5, density=0.9))
    x = torch.randn(5, 3, 20)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    single = sparse(pruned("lstm")).train()
    assert torch.equal(single(x)[0], single(x)[0])


@pytest.mark.parametrize(
    ("shape", "hx", "message"),
    [
        ((5,), None, "input has 1 dimensions"),
        ((5, 3, 21), None, "input has 21 features; the layer's input_size is 20"),
        ((0, 3, 20), None, "input has no time step"),
        ((5, 3, 20), torch.zeros(1, 3, 19), "The initial state is a Tensor; it must be a pair"),
        ((5, 3, 20), (torch.zeros(1, 3, 19),) * 3, "must be a pair"),
        ((5, 3, 20), (torch.zeros(1, 2, 19),) * 2, r"h_0 has shape \[1, 2, 19\]; for this input it must have"),
        ((5, 3, 20), (torch.zeros(1, 3, 19), torch.zeros(1, 3, 1)), r"c_0 has shape \[1, 3, 1\]"),
        ((5, 20), (torch.zeros(1, 1, 19),) * 2, r"h_0 has shape \[1, 1, 19\]; for this input it must have \[1, 19\]"),
        ((5, 3, 20), (torch.zeros(1, 3, 19, dtype=torch.float64),) * 2, "h_0 is torch.float64; the layer computes in"),
    ],
)
def test_what_does_not_fit_is_refused(pruned, sparse, shape, hx, message):
    with pytest.raises(UsageError, match=message):
        sparse(pruned("lstm"))(torch.zeros(shape), hx)


def test_a_packed_sequence_that_lies_is_refused(pruned, sparse):
    layer = sparse(pruned("gru"))
    packed = pack_padded_sequence(torch.zeros(4, 2, 20), torch.tensor([4, 2]))
    for sizes in ([2, 2, 2, 2], [1, 2, 2, 1], [3, 3, 0, 0]):
        with pytest.raises(UsageError, match="input has batch_sizes"):
            layer(packed._replace(batch_sizes=torch.tensor(sizes)))
    with pytest.raises(UsageError, match="h_0 has shape"):
        layer(packed, torch.zeros(1, 3, 19))


def test_a_batch_may_be_empty(pruned, sparse):
    layer = sparse(pruned("lstm"))
    for x in (torch.zeros(5, 0, 20), torch.zeros(5, 0, 20, requires_grad=True)):
        output, (h_n, c_n) = layer(x)
        assert (output.shape, h_n.shape, c_n.shape) == ((5, 0, 19), (1, 0, 19), (1, 0, 19))


def test_other_types_and_devices_are_refused(pruned, sparse):
    layer = sparse(pruned("gru"))
    with pytest.raises(UsageError, match=r"input is torch.float64; the layer computes in torch.float32"):
        layer(torch.zeros(5, 3, 20, dtype=torch.float64))
    with pytest.raises(UsageError, match="input is on meta, the layer on cpu"):
        layer(torch.zeros(5, 3, 20, device="meta"))
    with pytest.raises(UsageError, match="h_0 is on meta, the layer on cpu"):
        layer(torch.zeros(5, 3, 20), torch.zeros(1, 3, 19, device="meta"))


def test_under_autocast_it_takes_what_the_layers_before_it_give(pruned, sparse):
    layer, linear = sparse(pruned("gru")), nn.Linear(20, 20)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        x = linear(torch.randn(5, 3, 20))
        assert x.dtype == torch.bfloat16
        output, state = layer(x)
        layer(x, state.bfloat16())
    assert output.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("gru", torch.float32), ("lstm", torch.int8), ("diagonal_peephole_lstm", torch.float32)],
)
def test_it_is_exported_and_compiled_whole(pruned, sparse, kind, dtype):
    torch.compiler.reset()
    layer = sparse(pruned(kind, num_layers=2, bidirectional=kind == "gru"), dtype)
    sizes = [torch.randn(5, 3, 20), torch.randn(2, 7, 20)]
    any_size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        exported = torch.export.export(layer, (sizes[0],), dynamic_shapes=(any_size,)).module()
        for x in sizes:
            same(compiled(x), layer(x), 1e-6)
            same(exported(x), layer(x), 1e-6)
    x = sizes[0].requires_grad_()
    wanted, found = (torch.autograd.grad(model(x)[0].square().sum(), x)[0] for model in (layer, compiled))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.skipif(Version(torch.__version__) < Version("2.7"), reason="older compilers make no PackedSequence")
def test_packed_sequences_are_compiled_whole(pruned, sparse):
    torch.compiler.reset()
    layer = sparse(pruned("lstm"))
    packed = pack_padded_sequence(torch.randn(5, 3, 20), torch.tensor([2, 5, 3]), enforce_sorted=False)
    same(torch.compile(layer, fullgraph=True, backend="aot_eager")(packed), layer(packed), 1e-6)


def test_many_threads_may_call_a_layer(pruned, sparse):
    layer = sparse(pruned("lstm"))
    inputs = [torch.randn(9, batch, 20) for batch in (1, 2, 17, 33)]
    wanted = [layer(x) for x in inputs]

    def agrees(x, result):
        return all(torch.equal(layer(x)[0], result[0]) for _ in range(20))

    with ThreadPoolExecutor(len(inputs)) as threads:
        assert all(threads.map(agrees, inputs, wanted))


def test_it_says_what_it_holds(pruned, sparse):
    dense = pruned("gru")
    layer = sparse(dense, torch.int8)
    kept = sum(int(dense.get_parameter(name).count_nonzero()) for name in ("weight_ih_l0", "weight_hh_l0"))
    assert layer.density == pytest.approx(kept / (57 * 39))
    assert layer.nbytes == 3 * kept + 2 * 4 * (58 + 57) + 4 * 4 * 19
    assert layer.backend in ("avx512", "avx2", "neon", "plain") if library() else layer.backend == "torch"
    assert repr(layer) == (
        "SparseGRU(input_size=20, hidden_size=19, num_layers=1, bias=True, batch_first=False, dropout=0.0, "
        f"bidirectional=False, dtype=int8, density={layer.density:.2%}, nbytes={layer.nbytes:,}, "
        f"backend={layer.backend})"
    )
    layer.flatten_parameters()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SparseLSTM(0, 3), "input_size=0: give a whole number from 1 to 65536"),
        (lambda: SparseGRU(3, 70000), "hidden_size=70000: give a whole number from 1 to 65536"),
        (lambda: SparseGRU(3, 4, dropout=2), "dropout=2: give a probability"),
        (lambda: SparseGRU(3, 4, dtype=torch.float16), "dtype=torch.float16: choose one of torch.float32, "),
        (lambda: SparseLSTM(3, 4, proj_size=4), "proj_size=4: give a size below hidden_size=4"),
        (lambda: SparseRNN(3, 4, nonlinearity="sin"), "nonlinearity='sin': choose one of tanh, relu"),
        (lambda: SparsePeepholeLSTM(3, 4, peepholes="some"), "peepholes='some': choose one of full, diagonal"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("kind", NAMES)
def test_outputs_may_be_changed_in_place_before_the_backward_pass(pruned, sparse, kind):
    dense, x = pruned(kind, 5, 7), torch.randn(3, 2, 5)
    layer = sparse(dense)
    gradients = []
    for one in (dense, layer):
        own = x.clone().requires_grad_()
        out, _ = one(own)
        out = out.mul_(2) if one is layer else out * 2  # PyTorch's own LSTM needs its outputs
        out.square().sum().backward()
        gradients.append(own.grad)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-5)


def test_a_first_call_within_a_transformation_leaves_nothing_for_later_ones(pruned, sparse):
    layer, x, hx = sparse(pruned("gru", 5, 7)), torch.randn(37, 3, 5), torch.randn(1, 3, 7)
    gradient = torch.func.grad(lambda x: layer(x)[0].sum())(x)
    with torch.no_grad():
        found = layer(x)[0]
    own = x.clone().requires_grad_()
    out, _ = layer(own)
    out.sum().backward()
    torch.testing.assert_close((found, own.grad), (out.detach(), gradient), atol=1e-5, rtol=1e-5)
    scale = torch.ones(())
    for state in (None, hx):  # nothing that the layer gets is transformed
        derivative = torch.func.grad(lambda scale, state=state: (scale * layer(x, state)[0]).sum())(scale)
        torch.testing.assert_close(derivative, layer(x, state)[0].sum())
