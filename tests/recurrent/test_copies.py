"""Copies of a layer follow it, and what kernels= leaves out is not looked at."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

from sparse_rnn import prune
from sparse_rnn.recurrent.kernels import find_targets, targets_named

X = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(1))
CRITERIA = ["jacobian", "snip", "grasp", "synflow", "magnitude"]


def squares(model, x):
    return model(x).square().mean()


class Pair(nn.Module):
    """Runs ``online``; ``other`` is only run where ``runs``."""

    def __init__(self, make, runs: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.online = nn.GRU(3, 4)
        self.other = make(self.online)
        self.runs = runs

    def forward(self, x):
        if self.runs:
            with torch.no_grad():
                goal = 1 + 0.9 * self.other(x)[0]
            return self.online(x)[0] - goal
        return self.online(x)[0]


def target(online, lag=0.0):
    made = copy.deepcopy(online).requires_grad_(False)
    for parameter in made.parameters():
        parameter += lag * torch.randn(parameter.shape) * parameter.abs()
    return made


COPIES = {
    "average": (AveragedModel, "other.module"),
    "target": (target, "other"),
    "lagging target": (lambda online: target(online, lag=0.1), "other"),
}


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_left_out_and_has_the_zeros_of_its_source(kind, criterion, runs):
    make, name = COPIES[kind]
    model = Pair(make, runs)
    with pytest.warns(UserWarning, match=rf"Left out: {name} \(a copy of online\)"):
        masks = prune(model, X, sparsity=0.5, criterion=criterion, loss_fn=squares, rounds=1)
    assert set(masks) == {"online.weight_ih_l0", "online.weight_hh_l0"}
    for path, mask in masks.items():
        copied = model.get_parameter(path.replace("online", name))
        assert not copied[~mask].any()
        assert copied[mask].all()


@pytest.mark.parametrize("kind", COPIES)
def test_a_pattern_means_a_copy_where_it_does_not_mean_the_source(kind):
    make, name = COPIES[kind]
    model = Pair(make)
    assert list(find_targets(model, ["online.*"])) == ["online.weight_ih_l0", "online.weight_hh_l0"]
    assert not find_targets(model, ["online.*"]).notes
    assert list(find_targets(model, ["*weight_hh*"])) == ["online.weight_hh_l0"]
    assert "a copy of online" in find_targets(model, ["*weight_hh*"]).notes[0]
    both = find_targets(model, ["online.*", f"{name}.*hh*"])
    assert set(both) == {"online.weight_ih_l0", "online.weight_hh_l0", f"{name}.weight_hh_l0"}
    assert not both.copies
    assert len(targets_named(model, ["online.weight_hh_l0"]).copies["online.weight_hh_l0"]) == 1


def test_a_frozen_layer_of_its_own_is_pruned_like_any_other():
    model = Pair(lambda online: nn.GRU(3, 4).requires_grad_(False))
    assert len(find_targets(model)) == 4
    assert not find_targets(model).copies


def test_a_copy_that_no_optimizer_trains_is_known_where_the_optimizers_are():
    model = Pair(copy.deepcopy)
    assert len(find_targets(model)) == 4
    assert len(find_targets(model, trained=list(model.online.parameters()))) == 2


def test_an_average_that_is_the_whole_model_is_pruned_itself():
    assert list(find_targets(AveragedModel(nn.GRU(3, 4)))) == ["module.weight_ih_l0", "module.weight_hh_l0"]


class Special(nn.LSTM):
    def forward(self, x, hx=None):
        return x, None


OTHERS = {
    "not run": lambda online: nn.LSTM(4, 2),
    "equations of its own": lambda online: Special(4, 2),
    "computed": lambda online: parametrizations.weight_norm(nn.LSTM(4, 2), "weight_hh_l0"),
    "meta": lambda online: nn.LSTM(4, 2, device="meta"),
    "lazy": lambda online: nn.LazyLinear(2),
}


@pytest.mark.each_value
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("kind", OTHERS)
def test_what_kernels_leaves_out_is_not_looked_at(kind, criterion):
    options = {"sparsity": 0.5, "criterion": criterion, "loss_fn": squares, "rounds": 1, "kernels": ["online.*"]}
    alone = prune(Pair(lambda online: nn.Identity()), X, **options)
    masks = prune(Pair(OTHERS[kind]), X, **options)
    assert masks.digest() == alone.digest()


def test_a_lazy_layer_that_runs_while_weights_are_scored_works_afterwards():
    class Headed(Pair):
        def forward(self, x):
            return self.other(super().forward(x))

    model = Headed(lambda online: nn.LazyLinear(2))
    prune(model, X, sparsity=0.5, kernels=["online.*"])
    assert model(X).shape == (6, 4, 2)


def test_what_kernels_names_is_still_refused():
    with pytest.raises(ValueError, match=r"other\.weight_hh_l0 is computed by"):
        find_targets(Pair(OTHERS["computed"]), ["*hh*"])
    with pytest.raises(ValueError, match=r"other\.weight_ih_l0 is on the meta device"):
        find_targets(Pair(OTHERS["meta"]), ["*"])
    with pytest.raises(ValueError, match=r"other\.weight is not initialised yet"):
        find_targets(Pair(OTHERS["lazy"]), ["*"])


class OwnRNN(nn.RNNBase):
    """A recurrent module that no one was told of."""

    def __init__(self) -> None:
        super().__init__("GRU", 3, 4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_recurrent_parts_of_unknown_classes_are_named_with_what_to_do():
    scripted = nn.ModuleDict({"front": torch.jit.script(nn.GRU(3, 4))})
    with pytest.raises(ValueError, match=r"front is a scripted GRU, .*prune before torch\.jit\.script"):
        find_targets(scripted)
    own = nn.ModuleDict({"rnn": OwnRNN()})
    with pytest.raises(ValueError, match=r"kernels=.*rnn \(OwnRNN\) is recurrent: give OwnRNN .* to register_cell"):
        find_targets(own)
    own["known"] = nn.GRU(3, 4)
    assert "give OwnRNN" in find_targets(own).notes[0]
    assert not find_targets(own, ["known.*"]).notes


def test_the_message_for_a_model_without_recurrent_layers_names_kernels():
    with pytest.raises(ValueError, match="name the weights to prune in kernels="):
        find_targets(nn.Linear(3, 4))
    assert list(find_targets(nn.Linear(3, 4), ["weight"])) == ["weight"]


def with_bias_of(number):
    def make(online):
        made = nn.GRU(3, 4).requires_grad_(False)
        for layer in (online, made):
            for name, parameter in layer.named_parameters():
                if "bias" in name:
                    nn.init.constant_(parameter, number)
        return made

    return make


def of_zeros(online):
    for parameter in online.parameters():
        nn.init.zeros_(parameter)
    return nn.GRU(3, 4).requires_grad_(False)


def of_one_kernel(online):
    made = nn.GRU(3, 4).requires_grad_(False)
    for layer in (online, made):
        nn.init.eye_(layer.weight_hh_l0)
        layer.weight_hh_l0.data *= 100
    return made


def of_half_precision(online):
    made = nn.GRU(3, 4).requires_grad_(False)
    for layer in (online, made):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=100)
        layer.half()
    return made


@pytest.mark.parametrize("make", [with_bias_of(10.0), of_zeros, of_one_kernel, of_half_precision])
def test_a_frozen_layer_of_its_own_is_no_copy(make):
    """Neither for its biases, nor for one kernel that is the same, nor where there is nothing to compare with."""
    assert not find_targets(Pair(make)).notes
