"""The buffers of the layers for deployment: copied, saved and loaded, and refused where they are damaged."""

import copy
import io
import pickle
import re

import pytest
import torch
from torch import nn

from sparse_rnn.engine import SparseLSTM
from sparse_rnn.engine.packed import PackedWeights
from sparse_rnn.errors import UsageError


def same(found, wanted):
    """Whether two calls gave the same outputs and last states."""
    for own, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, other, atol=0, rtol=0)


def test_the_buffers_are_those_of_the_kernels_and_a_new_layer_has_no_weights():
    layer = PackedWeights("lstm", ("ih", "hh", "hr"), (3, 8, 2), 2, True, False, 0.0, True, torch.int8)
    shapes = {name: tuple(buffer.shape) for name, buffer in layer.named_buffers()}
    places = [f"l{depth}{direction}" for depth in range(2) for direction in ("", "_reverse")]
    assert {name for name in shapes if name.startswith("values")} == {
        f"values_{role}_{place}" for role in layer.roles for place in places
    }
    assert {shapes[f"scales_ih_{place}"] for place in places} == {(32,)}
    assert {shapes[f"offsets_hr_{place}"] for place in places} == {(3,)}
    assert {shapes[f"bias_{place}"] for place in places} == {(8, 4)}
    totals = [32 * (inputs + 2) + 2 * 8 for inputs in (3, 3, 4, 4)]
    assert [(size.total, size.kept, size.gated) for size in layer.sizes()] == [(total, 0, 32) for total in totals]
    assert layer.density == 0


def test_copies_compute_alike_and_on_their_own(pruned, sparse, kind):
    layer = sparse(pruned(kind), torch.int8 if kind == "gru" else torch.float32)
    x = torch.randn(5, 3, 20)
    wanted = layer(x)
    saved = io.BytesIO()
    torch.save(layer, saved)
    saved.seek(0)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(saved, weights_only=False)]
    for copied in copies:
        assert copied.columns_ih_l0.dtype == torch.uint16
        same(copied(x), wanted)
    for name, buffer in copies[0].named_buffers():
        if name.startswith("values"):
            buffer.zero_()
    same(layer(x), wanted)
    assert not torch.equal(copies[0](x)[0], wanted[0])


def test_a_layer_that_0_2_0_has_pickled_is_read(pruned, sparse):
    layer, x = sparse(pruned("gru")), torch.randn(5, 3, 20)
    now = pickle.dumps(layer, protocol=0)
    before = now.replace(b"sparse_rnn.engine.packed\nprepare_to_load", b"sparse_rnn.engine.layers\n_prepare_to_load")
    assert before != now
    same(pickle.loads(before)(x), layer(x))


def test_a_state_dict_of_any_number_of_weights_is_taken(pruned, sparse):
    layer, other = sparse(pruned("lstm")), SparseLSTM(20, 19)
    x = torch.randn(5, 3, 20)
    before = other(x)[0]
    other.load_state_dict(layer.state_dict())
    same(other(x), layer(x))
    assert not torch.equal(before, other(x)[0])
    nn.Sequential(SparseLSTM(20, 19)).load_state_dict({f"0.{name}": t for name, t in layer.state_dict().items()})


def damaged(name, change):
    return lambda state: state | {name: change(state[name])}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged("columns_ih_l0", lambda t: t.fill_(20)), "columns_ih_l0 has a column 20; the kernel has 20."),
        (damaged("offsets_hh_l0", lambda t: t.flip(0)), "offsets_hh_l0 does not rise from 0"),
        (damaged("offsets_hh_l0", lambda t: t + 1), "offsets_hh_l0 does not rise from 0"),
        (damaged("offsets_hh_l0", lambda t: t.clamp(max=3)), "offsets_hh_l0 does not rise from 0"),
        (damaged("offsets_hh_l0", lambda t: t.long()), "offsets_hh_l0 is torch.int64; it must be torch.int32."),
        (damaged("offsets_hh_l0", lambda t: t[:-1]), r"offsets_hh_l0 has shape [57]; it must have [58]."),
        (damaged("values_ih_l0", lambda t: t[1:]), "it must have"),
        (damaged("values_ih_l0", lambda t: t.float()), "values_ih_l0 is torch.float32; it must be torch.int8."),
        (damaged("columns_ih_l0", lambda t: t.int()), "columns_ih_l0 is torch.int32; it must be torch.uint16."),
        (damaged("scales_ih_l0", lambda t: t - 1), "scales_ih_l0 has a scale that is negative or no number."),
        (damaged("scales_ih_l0", lambda t: t * torch.nan), "scales_ih_l0 has a scale that is negative or no number."),
        (damaged("bias_l0", lambda t: t.double()), "bias_l0 is torch.float64; it must be torch.float32."),
        (damaged("bias_l0", lambda t: t[1:]), "bias_l0 has shape [18, 4]; it must have [19, 4]."),
    ],
)
def test_a_damaged_state_dict_is_refused_and_leaves_the_layer_as_it_was(pruned, sparse, damage, message):
    layer = sparse(pruned("gru"), torch.int8)
    x = torch.randn(5, 3, 20)
    before = layer(x)
    state = damage({name: tensor.clone() for name, tensor in layer.state_dict().items()})
    with pytest.raises(UsageError, match=re.escape(message)):
        layer.load_state_dict(state)
    same(layer(x), before)


def test_a_pattern_that_was_put_into_a_layer_otherwise_is_refused_when_it_is_called(pruned, sparse):
    layer = sparse(pruned("gru"))
    layer.columns_hh_l0 = torch.full_like(layer.columns_hh_l0, 100)
    with pytest.raises(UsageError, match="columns_hh_l0 has a column 100; the kernel has 19"):
        layer(torch.randn(5, 3, 20))
    with pytest.raises(UsageError, match=r"is torch.bfloat16; it must be torch.float32"):
        sparse(pruned("gru")).bfloat16()(torch.randn(5, 3, 20))
