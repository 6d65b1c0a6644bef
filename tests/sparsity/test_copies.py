"""Copies of weights are found by name, parameter, place and shape, and nothing else is."""

import copy
from argparse import ArgumentParser
from collections import deque

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import TensorDataset
from unresolved import Unresolved

from sparse_rnn.sparsity.copies import Copies

HH = "rnn.weight_hh_l0"


def model():
    torch.manual_seed(0)
    return nn.ModuleDict({"rnn": nn.GRU(4, 4, 2), "head": nn.Linear(4, 2)})


def names(thing, of, **options):
    found = list(Copies(of, [HH], **options).within(thing))
    for _, _, tensor in found:
        assert tensor.shape == (12, 4)
    return [name for _, name, _ in found]


class Keeper:
    """An object of somebody's; it can be called."""

    def __init__(self, value):
        self.value = value

    def __call__(self):
        return self.value


KEPT = {
    "pairs": lambda m: [(name, value.clone()) for name, value in m.named_parameters()],
    "with its step": lambda m: (3, copy.deepcopy(m.state_dict())),
    "behind nothing": lambda m: [None, copy.deepcopy(m.state_dict())],
    "state dict": lambda m: copy.deepcopy(m.state_dict()),
    "prefixes": lambda m: {f"module.ema.{name}": value.clone() for name, value in m.state_dict().items()},
    "compiled": lambda m: {f"_orig_mod.{name}": value.clone() for name, value in m.state_dict().items()},
    "of the layer": lambda m: copy.deepcopy(m["rnn"].state_dict()),
    "dots left out": lambda m: {name.replace(".", ""): value.clone() for name, value in m.state_dict().items()},
    "by parameter": lambda m: {value: value.detach().clone() for value in m.parameters()},
    "by id": lambda m: {id(value): value.detach().clone() for value in m.parameters()},
    "by parameter, with more": lambda m: {value: {"slow": value.detach().clone()} for value in m.parameters()},
    "a list": lambda m: [value.detach().clone() for value in m.parameters()],
    "a list of the layer": lambda m: [value.detach().clone() for value in m["rnn"].parameters()],
    "a tuple in a queue": lambda m: deque([tuple(value.detach().clone() for value in m.parameters())]),
    "alone": lambda m: m["rnn"].weight_hh_l0.detach().clone(),
    "one vector": lambda m: nn.utils.parameters_to_vector(m.parameters()).detach(),
    "a module": copy.deepcopy,
    "a module of another class": lambda m: nn.Sequential(copy.deepcopy(m["rnn"])),
    "an averaged layer": lambda m: AveragedModel(m["rnn"]),
    "an object": lambda m: Keeper([value.detach().clone() for value in m.parameters()]),
    "beside a config": lambda m: {"config": Unresolved(), "ema": copy.deepcopy(m.state_dict())},
    "deep": lambda m: {"states": [{"ema": Keeper(copy.deepcopy(m.state_dict()))}]},
}


@pytest.mark.parametrize("kind", KEPT)
def test_a_copy_is_found_wherever_it_is(kind):
    module = model()
    assert names(KEPT[kind](module), module) == [HH]
    assert names({"more": KEPT[kind](module), "count": 3}, module) == [HH]


def with_default(module):
    parser = ArgumentParser()
    parser.set_defaults(**{HH: module["rnn"].weight_hh_l0.detach().clone()})
    return parser


OTHERS = {
    "the model itself": lambda m: m,
    "its parameters": lambda m: list(m.parameters()),
    "masks": lambda m: {HH: torch.ones(12, 4, dtype=torch.bool)},
    "counts": lambda m: {HH: torch.ones(12, 4, dtype=torch.long)},
    "another shape": lambda m: {HH: torch.ones(12, 5)},
    "another parameter": lambda m: {"rnn.weight_hh_l1": m["rnn"].weight_hh_l1.detach().clone()},
    "of another parameter": lambda m: {m["rnn"].weight_hh_l1: {"slow": m["rnn"].weight_hh_l0.detach().clone()}},
    "moments": lambda m: {m["rnn"].weight_hh_l0: {"exp_avg": torch.ones(12, 4), "step": 3}},
    "data": lambda m: TensorDataset(torch.ones(12, 4)),
    "plain values": lambda m: ["a", 1, None, 2.5, {"b": {1, 2}}, object(), len, nn.Linear],
    "a command line": with_default,
    "a config": lambda m: Unresolved(),
    "a list of other things": lambda m: [torch.ones(3), torch.ones(2, 2)],
    "of its shape": lambda m: m["rnn"].weight_hh_l0.detach() + torch.randn(12, 4),
    "a list of its shapes": lambda m: [torch.randn_like(value) for value in m.parameters()],
    "a vector of its length": lambda m: torch.randn(sum(value.numel() for value in m.parameters())),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_copy_is_none(kind):
    module = model()
    assert names(OTHERS[kind](module), module) == []


@pytest.mark.parametrize("kind", ["alone", "a list", "one vector"])
def test_a_dense_copy_of_pruned_weights_is_like_what_is_kept_of_them(kind):
    module = model()
    dense = KEPT[kind](module)
    with torch.no_grad():
        module["rnn"].weight_hh_l0.flatten()[::10].mul_(-1).sub_(0.01)
        module["rnn"].weight_hh_l0[1:] = 0
    assert names({"average": dense}, module) == [HH]


def test_what_is_left_out_is_not_looked_into():
    module, keeper = model(), Keeper({HH: torch.ones(12, 4)})
    assert names([keeper], module) == [HH]
    assert names([keeper], module, leave_out=[keeper]) == []


def test_things_that_lead_to_themselves_end():
    module, keeper = model(), Keeper(None)
    keeper.value = [keeper, {HH: torch.ones(12, 4)}]
    assert names(keeper, module) == [HH]


def test_values_tell_layers_of_one_shape_apart():
    module = nn.ModuleDict({"one": nn.GRU(4, 4), "two": nn.GRU(4, 4)})
    for name in ("one", "two"):
        copied = {"layer": module[name].state_dict() | {}}
        copied = {key: value * 0.9 for key, value in copied["layer"].items()}
        wanted = [f"{layer}.weight_hh_l0" for layer in ("one", "two")]
        assert [found[1] for found in Copies(module, wanted).within(copied)] == [f"{name}.weight_hh_l0"]
        assert [found[1] for found in Copies(module, wanted).within(list(copied.values()))] == [f"{name}.weight_hh_l0"]


def test_averages_that_are_parts_of_the_model():
    module = model()
    module["average"] = AveragedModel(module["rnn"])
    [(_, name, tensor)] = Copies(module, [HH]).of_modules(module)
    assert name == HH
    assert tensor is module["average"].module.weight_hh_l0
    assert list(Copies(module, [HH, "average.module.weight_hh_l0"]).of_modules(module)) == []  # pruned by itself
    module = model()
    module.register_buffer("rnnweight_hh_l0", torch.ones(12, 4))
    assert [name for _, name, _ in Copies(module, [HH]).of_modules(module)] == [HH]


def test_optimizers_and_their_states():
    module = model()
    optimizer = torch.optim.ASGD(module.parameters(), t0=0)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.param_groups[0]["slow"] = [value.detach().clone() for value in module.parameters()]
    copies = Copies(module, [HH], [optimizer])
    assert [name for _, name, _ in copies.of_optimizer(optimizer)] == [HH, HH]
    [(_, name, tensor)] = Copies(module, [HH]).of_optimizer_state(
        torch.optim.ASGD(module.parameters()).state_dict()
        | {"state": {i: {"ax": torch.ones_like(value)} for i, value in enumerate(module.parameters())}},
        optimizer,
    )
    assert (name, tensor.shape) == (HH, (12, 4))
