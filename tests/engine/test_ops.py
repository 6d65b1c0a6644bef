"""The operators of torch: their gradients, what they keep, how they are traced, and what they refuse."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sparse_rnn.engine import ops, pattern
from sparse_rnn.engine.library import warn_not_built

KINDS = ["rnn_tanh", "rnn_relu", "gru", "lstm", "projected_lstm", "peephole_lstm", "diagonal_peephole_lstm"]
RAGGED = [7, 5, 5, 4, 2, 1]


@pytest.mark.each_value
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
