"""Masks.hold(): removed weights stay at 0 after each step of whatever optimizer, until it is let go."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from sparse_rnn import Masks, prune


class Prepared(torch.optim.Optimizer):
    """As accelerate prepares an optimizer: an Optimizer by class, without the hooks of one."""

    def __init__(self, inner):
        self.optimizer = inner

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)

    def step(self, closure=None):
        self.optimizer.step(closure)


def trained(gru, optimizer, steps=2):
    for _ in range(steps):
        for parameter in gru.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()


def removed(gru, masks):
    return sum(int(gru.get_parameter(name)[~mask].count_nonzero()) for name, mask in masks.items())


@pytest.fixture
def pruned():
    torch.manual_seed(0)
    gru = nn.GRU(3, 8)
    return gru, prune(gru, None, sparsity=0.8, criterion="magnitude")


OPTIMIZERS = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
    "asgd": lambda parameters: torch.optim.ASGD(parameters, lr=0.1, t0=0),
    "prepared": lambda parameters: Prepared(torch.optim.SGD(parameters, lr=0.1)),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("late", [False, True])
def test_the_zeros_hold_with_whatever_optimizer_made_before_or_after(pruned, kind, late):
    gru, masks = pruned
    if late:
        handle, optimizer = masks.hold(), OPTIMIZERS[kind](gru.parameters())
    else:
        optimizer, handle = OPTIMIZERS[kind](gru.parameters()), masks.hold()
    trained(gru, optimizer)
    assert removed(gru, masks) == 0
    assert handle.stepped
    for name, mask in masks.items():
        state = optimizer.state.get(gru.get_parameter(name), {})
        assert not state.get("ax", torch.zeros_like(mask))[~mask].any()
    handle.remove()
    trained(gru, optimizer)
    assert removed(gru, masks) > 0


def test_as_a_context_manager_it_ends_with_the_block(pruned):
    gru, masks = pruned
    optimizer = torch.optim.SGD(gru.parameters(), lr=0.1)
    with masks.hold():
        trained(gru, optimizer)
        assert removed(gru, masks) == 0
    trained(gru, optimizer)
    assert removed(gru, masks) > 0


def test_optimizers_of_other_models_are_not_its_business(pruned):
    gru, masks = pruned
    with masks.hold() as hold, torch.no_grad():
        for name in masks:
            gru.get_parameter(name).fill_(1.0)
        other = nn.Linear(2, 2)
        trained(other, torch.optim.SGD(other.parameters()))
        assert not hold.stepped
        assert removed(gru, masks) > 0


def test_it_does_not_keep_the_model_alive():
    gru = nn.GRU(3, 8)
    prune(gru, None, sparsity=0.8, criterion="magnitude").hold()
    gone = weakref.ref(gru)
    del gru
    gc.collect()
    assert gone() is None


def test_masks_that_are_held_can_be_pickled_and_copied_with_their_model(pruned):
    gru, masks = pruned
    with masks.hold():
        for gru_again, masks_again in (copy.deepcopy((gru, masks)), pickle.loads(pickle.dumps((gru, masks)))):
            nn.init.ones_(gru_again.weight_hh_l0)
            masks_again.apply_()
            assert removed(gru_again, masks) == 0


@pytest.mark.parametrize("other", [nn.ReLU, lambda: weight_norm(nn.Linear(2, 2))])
def test_a_layer_that_has_been_replaced_is_none_of_its_business(other):
    model, elsewhere = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2)
    masks = {f"{i}.weight": torch.eye(2, dtype=torch.bool) for i in range(2)}
    with Masks(masks, model).hold():
        model[0] = other()
        trained(elsewhere, torch.optim.SGD(elsewhere.parameters(), lr=0.1))
        trained(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert (model[1].weight[~masks["1.weight"]] == 0).all()
