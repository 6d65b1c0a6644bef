import pytest
import torch

from sparse_rnn.engine import ops
from sparse_rnn.engine.direct import run_directly
from sparse_rnn.engine.library import library
from sparse_rnn.engine.weights import Weights

pytestmark = pytest.mark.skipif(library() is None, reason="The kernels are not built.")


@pytest.mark.each_value
@pytest.mark.parametrize("batch", [1, 4, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_it_is_the_operator_bit_for_bit(pruned, sparse, kind, batch, dtype):
    layer = sparse(pruned(kind), dtype)
    [[weights]] = layer._layers()
    steps, state = 3, [torch.randn(1, batch, layer.output_size)]
    if layer.cell == "lstm":
        state.append(torch.randn(1, batch, layer.hidden_size))
    x = torch.randn(steps * batch, 20)
    starts, lengths = torch.arange(steps) * batch, torch.full((batch,), steps)
    out, last = run_directly([[weights]], x, starts, lengths, state, 0.0, training=False)
    c_0 = state[1][0] if layer.cell == "lstm" else None
    wanted, *wanted_last, _ = ops.layer(
        weights.cell,
        x,
        state[0][0],
        c_0,
        weights.bias,
        weights.peephole,
        " ".join(weights.roles),
        weights.values,
        weights.offsets,
        weights.columns,
        [],
        weights.scales,
        starts,
        lengths,
        False,
        False,
    )
    assert torch.equal(out, wanted)
    for own, other in zip(last, wanted_last, strict=False):
        assert torch.equal(own[0], other)


LOSSES = {
    "of a sum": lambda out, last: out.sum(),
    "of the last output": lambda out, last: out[-1].square().sum(),
    "of the last states": lambda out, last: sum(part.square().sum() for part in last),
    "of everything": lambda out, last: out.square().sum() + sum(part.sin().sum() for part in last),
    "of outputs turned round": lambda out, last: out.transpose(-1, -2).contiguous().cos().sum(),
}
LAYOUTS = {
    "time first": lambda x: x,
    "batch first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "features first": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "one step, repeated": lambda x: x[:1].expand_as(x),
}


@pytest.mark.each_value
@pytest.mark.parametrize("kind", ["gru", "projected_lstm"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_are_those_of_the_operator_bit_for_bit(case, kind, layout, loss, reverse):
    own = case(kind, lengths=[5] * 3, inputs=6, units=9, reverse=reverse)
    found, wanted = [], []
    for results, direct in ((found, True), (wanted, False)):
        leaves = own.leaves(torch.float32)
        cell, _, h_0, c_0, bias, peephole, roles, values, offsets, columns, blocks, scales, *lengths, _, _ = (
            own.arguments(leaves)
        )
        steps = leaves["x"].unflatten(0, (5, 3))
        steps.retain_grad()
        x = LAYOUTS[layout](steps)
        if direct:
            weights = Weights(cell, roles.split(), values, offsets, columns, blocks, scales, bias, peephole)
            state = [part.unsqueeze(0) for part in (h_0, c_0) if part is not None]
            # The only direction of a layer is read forwards: a module's second one is the other.
            layers = [[weights, weights]] if reverse else [[weights]]
            state = [part.expand(len(layers[0]), -1, -1) for part in state]
            out, last = run_directly(layers, x, *lengths, state, 0.0, training=True)
            out = out[..., out.shape[-1] // len(layers[0]) * reverse :]
            last = [part[-1] for part in last]
        else:
            given = x.reshape(15, -1), h_0, c_0, bias, peephole, roles, values, offsets, columns, blocks, scales
            out, *last, _ = ops.layer(cell, *given, *lengths, reverse, True)
            out, last = out.unflatten(0, (5, 3)), last[: 1 if c_0 is None else 2]
        results.extend([out, *last])
        LOSSES[loss](out, last).backward()
        results.extend(leaf.grad for leaf in leaves.values())
    for one, other in zip(found, wanted, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.slow
def test_gradients_can_be_differentiated_twice(case, kind):
    own = case(kind, lengths=[2] * 2, inputs=2, units=3, dtype=torch.float64)
    leaves = own.leaves(torch.float64)

    def run(*tensors):
        arguments = own.arguments(dict(zip(leaves, tensors, strict=True)))
        cell, x, h_0, c_0, bias, peephole, roles, values, offsets, columns, blocks, scales, *lengths, _, _ = arguments
        weights = Weights(cell, roles.split(), values, offsets, columns, blocks, scales, bias, peephole)
        state = [part.unsqueeze(0) for part in (h_0, c_0) if part is not None]
        out, last = run_directly([[weights]], x.unflatten(0, (2, 2)), *lengths, state, 0.0, training=True)
        return out, *last

    assert torch.autograd.gradgradcheck(run, list(leaves.values()))


def test_a_batch_may_be_overwritten_before_its_gradients_are_computed(case):
    own = case("gru", lengths=[3] * 2, inputs=3, units=4)
    cell, x, h_0, _, bias, peephole, roles, *lists, starts, lengths, _, _ = own.arguments(own.leaves(torch.float32))
    weights = Weights(cell, roles.split(), *lists, bias, peephole)

    def gradient(overwritten, twice=False):
        steps = x.detach().clone().unflatten(0, (3, 2))
        out, _ = run_directly([[weights]], steps, starts, lengths, [h_0.unsqueeze(0)], 0.0, training=True)
        if overwritten:
            steps.zero_()
        return torch.autograd.grad(out.sum(), weights.values[1], create_graph=twice)[0]

    assert torch.equal(gradient(True), gradient(False))
    with pytest.raises(RuntimeError, match="modified in place"):
        gradient(True, twice=True)
