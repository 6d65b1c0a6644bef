import pytest
import torch

from sparse_rnn.engine.library import library

pytestmark = pytest.mark.skipif(library() is None, reason="The kernels are not built.")


def test_sizes_are_those_of_the_layer(pruned, sparse, kind):
    layer = sparse(pruned(kind))
    [[weights]] = layer._layers()
    assert (weights.units, weights.outputs) == (layer.hidden_size, layer.output_size)
    assert (weights.constant.units, weights.constant.outputs) == (layer.hidden_size, layer.output_size)


def test_widened_values_are_those_that_the_short_ones_stand_for(pruned, sparse):
    dense = pruned("lstm")
    [[exact]] = sparse(dense)._layers()
    [[short]] = sparse(dense, torch.int8)._layers()
    wide = short.widened(torch.float32)
    assert not wide.scales
    for own, other, scale, offsets in zip(wide.values, exact.values, short.scales, short.offsets, strict=True):
        assert own.dtype == torch.float32
        steps = torch.repeat_interleave(scale, offsets.diff())
        assert bool(((own - other).abs() <= 0.501 * steps).all())
    assert wide.widened(torch.float32).values[0].data_ptr() == wide.values[0].data_ptr()
    assert len(short.tensors) == 3
