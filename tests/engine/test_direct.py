import pytest
import torch

from sparse_rnn.engine import ops
from sparse_rnn.engine.direct import run_directly
from sparse_rnn.engine.library import library

pytestmark = pytest.mark.skipif(library() is None, reason="The kernels are not built.")


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
    out, last = run_directly([[weights]], x, starts, lengths, state, 0.0)
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
