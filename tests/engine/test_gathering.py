"""The kept weights of a layer are those of its parameters now, and their gradients are dense with zeros."""

import pytest
import torch
from torch import nn

from sparse_rnn.engine import gathering
from sparse_rnn.engine.gathering import LiveLayer
from sparse_rnn.engine.library import library
from sparse_rnn.recurrent import find_recurrent
from sparse_rnn.recurrent.weight_drop import run_dropped

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels are not built")
KERNELS = ("weight_ih_l0", "weight_hh_l0")


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.GRU(5, 19)


@pytest.fixture
def layer(module):
    """Its layer, with masks that keep a third of it."""
    layer = live(module)
    layer.update(masks_of(module))
    return layer


def live(module):
    [found] = find_recurrent(module)
    return LiveLayer(module, 0, found.layers[0][0])


def masks_of(module, every=3):
    shapes = {name: module.get_parameter(name).shape for name in KERNELS}
    return {name: torch.arange(shape.numel()).view(shape) % every == 0 for name, shape in shapes.items()}


def kept(module, name, masks):
    """The kept weights of a kernel, by unit and then by gate."""
    weight, mask = (
        part.unflatten(0, (3, -1)).transpose(0, 1).flatten() for part in (module.get_parameter(name), masks[name])
    )
    return weight[mask]


def test_values_are_the_kept_weights_and_gradients_are_dense_with_zeros(module, layer):
    masks, values = masks_of(module), layer.weights().values
    for name, own in zip(KERNELS, values, strict=True):
        wanted = kept(module, name, masks)
        assert torch.equal(own, wanted)
        factor, parameter = torch.rand_like(wanted), module.get_parameter(name)
        ours, theirs = (torch.autograd.grad((part * factor).sum(), parameter)[0] for part in (own, wanted))
        assert torch.equal(ours, theirs)


def test_calls_share_what_was_gathered_until_a_weight_changes(module, layer):
    first = layer.weights().values
    assert all(a is b for a, b in zip(layer.weights().values, first, strict=True))
    with torch.no_grad():
        assert all(a is not b for a, b in zip(layer.weights().values, first, strict=True))
        module.weight_hh_l0.mul_(2)
    ih, hh = layer.weights().values
    assert ih is first[0]
    assert torch.equal(hh, 2 * first[1])


def test_what_torch_does_not_count_is_noticed_where_nearly_all_weights_change_and_else_when_told(module, layer):
    before = layer.weights().values[1].detach().clone()
    module.weight_hh_l0.data.mul_(2)
    assert torch.equal(layer.weights().values[1], 2 * before)
    layer.forget()
    assert layer.weights().values[1] is layer.weights().values[1]


def test_another_parameter_at_the_same_place_is_not_taken_for_the_one_before(module, layer):
    for _ in range(2):
        sum(own.sum() for own in layer.weights().values).backward()
        assert module.weight_hh_l0.grad is not None
        module.weight_hh_l0 = nn.Parameter(module.weight_hh_l0.detach())
        assert module.weight_hh_l0.grad is None


def test_other_masks_are_listed_anew_and_the_same_ones_are_not(module, layer):
    values = layer.weights().values
    layer.update(masks_of(module))
    assert layer.weights().values[0] is values[0]
    layer.update(masks_of(module, every=7) | {"weight_ih_l0": None})
    ih, hh = layer.weights().values
    assert torch.equal(hh, kept(module, "weight_hh_l0", masks_of(module, every=7)))
    assert len(ih) == module.weight_ih_l0.numel()
    assert layer.size().kept == len(ih) + len(hh)


def test_optimizers_are_told_of_large_kernels_of_which_few_weights_are_kept(module, layer, monkeypatch):
    assert list(layer.positions()) == []
    monkeypatch.setattr(gathering, "LARGE", module.weight_hh_l0.numel())
    [(parameter, positions)] = layer.positions()
    assert parameter is module.weight_hh_l0
    assert torch.equal(positions.sort().values, masks_of(module)["weight_hh_l0"].flatten().nonzero().flatten().int())
    layer.update({})
    assert list(layer.positions()) == []


def test_only_parameters_and_what_weight_drop_puts_there_keep_zeros(module, layer):
    seen = []
    module.register_forward_pre_hook(lambda *_: seen.append(layer.keeps_zeros))
    x = torch.randn(2, 3, 5)
    module(x)
    run_dropped(module, 0.5, x, None)
    torch.func.functional_call(module, {"weight_hh_l0": torch.zeros(57, 19)}, x)
    assert seen == [True, True, False]
