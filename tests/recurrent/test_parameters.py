"""Kernels that are shared, frozen, in half precision, without values, or computed from other parameters."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.nn.utils import prune as torch_prune

from sparse_rnn import SNIP, GraSP, SynFlow, prune
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.kernels import find_targets, targets_named

CRITERIA = ["jacobian", "magnitude", "random"]
X = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(1))


class EncoderDecoder(nn.Module):
    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x):
        _, state = self.encoder(x)
        return self.decoder(x, state)[0]


def tied() -> EncoderDecoder:
    torch.manual_seed(0)
    model = EncoderDecoder(nn.GRU(3, 4), nn.GRU(3, 4))
    model.decoder.weight_hh_l0 = model.encoder.weight_hh_l0
    return model


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x):
        state = None
        for x_t in x:
            state = self.cell(x_t, state)
        return state[0]


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, proj_size=2)

    def forward(self, x):
        return self.rnn(x)[0]


def squares(model, x):
    return model(x).square().mean()


@pytest.mark.parametrize("gamma", ["none", "sequence"])
@pytest.mark.parametrize("build", [tied, Loop, Projected])
@pytest.mark.parametrize("criterion", [SNIP, GraSP])
def test_criteria_of_the_loss_score_every_kernel_over_all_its_uses(criterion, build, gamma):
    model = build().double()
    x = X.double()
    kernels = {name: kernel.parameter for name, kernel in find_targets(model).items()}
    scores = criterion(gamma=gamma).score(model, x, squares, find_targets(model))
    assert set(scores) == set(kernels)
    assert all(score.isfinite().all() and score.count_nonzero() for score in scores.values())
    if criterion is SNIP and gamma == "none":
        gradients = torch.autograd.grad(squares(model, x), list(kernels.values()))
        for (name, kernel), gradient in zip(kernels.items(), gradients, strict=True):
            torch.testing.assert_close(scores[name], (kernel * gradient).abs().detach())


def test_synflow_sums_the_flows_through_a_tied_kernel_and_refuses_a_projection():
    model = tied()
    both = SynFlow().score(model, X, None, find_targets(model))
    alone = [SynFlow().score(rnn, X, None, find_targets(rnn))["weight_hh_l0"] for rnn in (model.encoder, model.decoder)]
    torch.testing.assert_close(both["encoder.weight_hh_l0"], sum(alone))
    model = Loop()
    assert set(SynFlow().score(model, X, None, find_targets(model))) == {"cell.weight_ih", "cell.weight_hh"}
    with pytest.raises(ValueError, match=r"does not know what flows through rnn\.weight_hr_l0"):
        SynFlow().score(model := Projected(), X, None, find_targets(model))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_frozen_kernel_is_pruned_like_any_other(criterion):
    torch.manual_seed(0)
    rnn = nn.LSTM(3, 8)
    free = prune(rnn, X, sparsity=0.5, criterion=criterion)
    torch.manual_seed(0)
    rnn = nn.LSTM(3, 8)
    rnn.weight_hh_l0.requires_grad_(False)
    frozen = prune(rnn, X, sparsity=0.5, criterion=criterion)
    assert frozen.digest() == free.digest()
    assert not rnn.weight_hh_l0.requires_grad


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_kernels_keep_their_type_and_exact_count(dtype, criterion):
    torch.manual_seed(0)
    rnn = nn.LSTM(3, 8, num_layers=2).to(dtype)
    masks = prune(rnn, X.to(dtype), sparsity=0.9, criterion=criterion)
    assert masks.kept == round(0.1 * masks.total)
    assert all(p.dtype == dtype for p in rnn.parameters())
    assert sum(int(rnn.get_parameter(name).count_nonzero()) for name in masks) == masks.kept


def test_a_half_precision_model_gets_half_precision_from_its_layers():
    model = nn.Sequential(nn.LSTM(3, 8), Last(), nn.Linear(8, 2)).bfloat16()
    assert prune(model, X.bfloat16(), sparsity=0.5).sparsity == 0.5


class Last(nn.Module):
    def forward(self, returned):
        return returned[0][-1]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_parameters_without_values_are_refused(criterion):
    with pytest.raises(ValueError, match=r"weight_ih_l0 is on the meta device and has no values.*to_empty"):
        prune(nn.GRU(3, 4, device="meta"), X, sparsity=0.5, criterion=criterion)
    lazy = nn.Sequential(nn.LazyLinear(3), nn.GRU(3, 4))
    with pytest.raises(ValueError, match=r"0\.weight is not initialised yet: run the model on a batch once"):
        prune(lazy, X, sparsity=0.5, criterion=criterion)
    lazy(X)
    assert prune(lazy, X, sparsity=0.5, criterion=criterion).sparsity == 0.5


WAYS_TO_COMPUTE = {
    "weight_norm": (weight_norm, nn.utils.remove_weight_norm),
    "spectral_norm": (spectral_norm, nn.utils.remove_spectral_norm),
    "parametrized weight_norm": (parametrizations.weight_norm, nn.utils.parametrize.remove_parametrizations),
    "parametrized spectral_norm": (parametrizations.spectral_norm, nn.utils.parametrize.remove_parametrizations),
    "prune": (lambda m, n: torch_prune.random_unstructured(m, n, amount=0.5), torch_prune.remove),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PyTorch's, of the old weight_norm
@pytest.mark.parametrize("way", WAYS_TO_COMPUTE)
def test_a_computed_kernel_is_refused_with_what_to_do_and_that_helps(way):
    reparametrise, undo = WAYS_TO_COMPUTE[way]
    model = nn.Sequential(nn.GRU(3, 4))
    reparametrise(model[0], "weight_hh_l0")
    with pytest.raises(ValueError, match=rf"0\.weight_hh_l0 is computed by .*\.{undo.__name__}\(model\.0, 'weight_hh"):
        prune(model, X, sparsity=0.5, criterion="magnitude")
    undo(model[0], "weight_hh_l0")
    assert prune(model, X, sparsity=0.5, criterion="magnitude").sparsity == 0.5


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PyTorch's, of the old weight_norm
@pytest.mark.parametrize("way", WAYS_TO_COMPUTE)
def test_a_computed_weight_of_another_layer_is_refused_where_it_is_meant(way):
    reparametrise, undo = WAYS_TO_COMPUTE[way]
    model = nn.ModuleDict({"rnn": nn.GRU(3, 4), "mix": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
    reparametrise(model["mix"], "weight")
    refused = rf"mix\.weight is computed by .*\.{undo.__name__}\(model\.mix, 'weight'\)"
    for patterns in (["*"], ["mix.*"], ["*.weight"]):
        with pytest.raises(UsageError, match=refused):
            find_targets(model, patterns)
    with pytest.raises(UsageError, match=refused):
        targets_named(model, ["mix.weight"])
    assert list(find_targets(model, ["rnn.*", "head.*"])) == ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight"]
    undo(model["mix"], "weight")
    assert "mix.weight" in find_targets(model, ["*"])


def squares_of_output(model, x):
    returned = model(x)
    return (returned[0] if isinstance(returned, tuple) else returned).square().mean()


class Doubled(nn.Module):
    def forward(self, bias):
        return 2 * bias


def halved(module, name):
    with torch.no_grad():
        getattr(module, name).mul_(0.5)
    return nn.utils.parametrize.register_parametrization(module, name, Doubled())


@pytest.mark.each_value
@pytest.mark.parametrize("compute", [torch_prune.identity, halved], ids=["prune", "parametrization"])
@pytest.mark.parametrize("criterion", ["jacobian", "grasp", "snip", "synflow"])
@pytest.mark.parametrize("build", [lambda: nn.LSTM(3, 8), lambda: nn.GRU(3, 8), Loop], ids=["lstm", "gru", "cell"])
def test_a_computed_bias_counts_as_it_is(build, criterion, compute):
    masks = []
    for computed in (False, True):
        torch.manual_seed(0)
        model = build()
        module, suffix = (model.cell, "") if isinstance(model, Loop) else (model, "_l0")
        nn.init.constant_(getattr(module, f"bias_hh{suffix}"), 1.0)
        if computed:
            compute(module, f"bias_hh{suffix}")
        masks.append(prune(model, X, sparsity=0.5, criterion=criterion, rounds=1, loss_fn=squares_of_output))
    assert masks[0].digest() == masks[1].digest()


def test_a_kernel_that_is_no_parameter_is_refused():
    model = nn.GRU(3, 4)
    raw = model.weight_hh_l0.detach()
    del model.weight_hh_l0
    model.weight_hh_l0 = raw
    with pytest.raises(ValueError, match="weight_hh_l0 is not a parameter of GRU"):
        prune(model, X, sparsity=0.5)
