import warnings

import pytest
import torch
from torch import nn

from sparse_rnn import JacobianSpectrum, PeepholeLSTM, Random, ResetBeforeGRU, prune
from sparse_rnn.recurrent.kernels import find_targets


@pytest.mark.parametrize("criterion", ["jacobian", "magnitude", "random", JacobianSpectrum(horizon=1), Random()])
def test_exactly_the_wished_number_of_weights_stays(model, criterion, x):
    masks = prune(model, x, sparsity=0.9, criterion=criterion)
    total = sum(p.numel() for name, p in model.named_parameters() if "weight_" in name)
    assert set(masks) == {f"rnn.weight_{role}_l{depth}" for role in ("ih", "hh") for depth in (0, 1)}
    assert masks.kept == round(0.1 * total)
    for name, mask in masks.items():
        assert (model.get_parameter(name)[~mask] == 0).all()
        assert (model.get_parameter(name)[mask] != 0).all()


def test_pruning_leaves_no_trace_but_the_zeros(model, x):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    masks = prune(model, x, sparsity=0.5)
    assert torch.equal(torch.get_rng_state(), rng)
    assert model.hidden is None
    assert model.seen == []
    assert model.training
    for name, value in model.state_dict().items():
        expected = before[name] * masks[name] if name in masks else before[name]
        assert torch.equal(value, expected), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_same_seed_gives_the_same_mask_whatever_happened_before(model, x):
    first = prune(model, x, sparsity=0.5, criterion="random", seed=3).digest()
    torch.rand(10)
    assert prune(model, x, sparsity=0.5, criterion="random", seed=3).digest() == first
    assert prune(model, x, sparsity=0.5, criterion="random", seed=4).digest() != first


def test_patterns_choose_kernels(model, x):
    dense = model.rnn.weight_ih_l0.detach().clone()
    masks = prune(model, x, sparsity=0.9, kernels=["*weight_hh*"])
    assert set(masks) == {"rnn.weight_hh_l0", "rnn.weight_hh_l1"}
    assert torch.equal(model.rnn.weight_ih_l0, dense)
    with pytest.raises(
        ValueError, match=r"kernels='\*weigth\*' matches none of the model's weights: rnn\.weight_ih_l0"
    ):
        prune(model, x, sparsity=0.9, kernels=["*weigth*"])


def test_the_diagonal_of_every_recurrent_gate_stays():
    rnn = PeepholeLSTM(8, 8)
    masks = prune(rnn, torch.randn(7, 4, 8), sparsity=0.85, criterion="random", keep_diagonal=True)
    for name in ("weight_hh_l0", "weight_ch_l0"):
        assert all(gate.diagonal().all() for gate in masks[name].chunk(4))
    assert not masks["weight_ih_l0"][:8].diagonal().all()
    assert masks.kept == round(0.15 * masks.total)


@pytest.mark.each_value
@pytest.mark.parametrize("rescale", [False, True, "chi"])
@pytest.mark.parametrize("criterion", ["jacobian", "synflow", "magnitude", JacobianSpectrum.author()])
def test_a_kernel_whose_gates_read_different_things_is_one_kernel(criterion, rescale):
    torch.manual_seed(0)
    rnn, x = ResetBeforeGRU(8, 20), torch.randn(7, 4, 8)
    masks = prune(rnn, x, sparsity=0.8, criterion=criterion, allocation="per_gate", rescale=rescale)
    assert set(masks) == {"weight_ih_l0", "weight_hh_l0"}
    assert masks.kernels["weight_hh_l0"].gates == ("r", "z", "n")
    assert masks.kernels["weight_hh_l0"].reads_state
    assert [int(gate.sum()) for gate in masks["weight_hh_l0"].chunk(3)] == [80, 80, 80]
    assert torch.equal(rnn.weight_hh_l0 != 0, masks["weight_hh_l0"])


def test_an_emptied_neuron_is_warned_about_unless_guarded(model, build, x):
    lost = r"No weight is left of gate g of rnn\.weight_ih_l0, .*, \d+ of \d+ neurons of rnn\.\w+[:,]"
    with pytest.warns(UserWarning, match=lost):
        prune(model, x, sparsity=0.9, criterion=JacobianSpectrum.paper())
    masks = prune(model, x, sparsity=0.9, criterion=JacobianSpectrum.paper(), min_kept=1)
    assert masks.kept == round(0.1 * masks.total)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(build(), x, sparsity=0.9, criterion=JacobianSpectrum.paper(), min_kept=1)


def test_named_gates_keep_their_density(model, x):
    masks = prune(model, x, sparsity=0.9, allocation={"*weight_hh*": {"g": 0.25}, "*ih_l0": 0.5})
    assert [int(masks[f"rnn.weight_hh_l{depth}"].chunk(4)[2].sum()) for depth in (0, 1)] == [16, 16]
    assert int(masks["rnn.weight_ih_l0"].sum()) == 48
    assert masks.kept == round(0.1 * masks.total)


def test_a_loss_function_runs_the_model(model, build, x):
    def loss_fn(module, batch):
        return module(batch["x"]).sum()

    by_loss = prune(model, {"x": x, "y": None}, sparsity=0.5, loss_fn=loss_fn)
    assert by_loss.digest() == prune(build(), x, sparsity=0.5).digest()


def test_batches_are_spread_over_the_arguments(x):
    torch.manual_seed(0)
    rnn = nn.GRU(3, 4, batch_first=True)
    scores = JacobianSpectrum(gamma="none").score(rnn, x, None, find_targets(rnn))
    for batch in ((x,), {"input": x}):
        again = JacobianSpectrum(gamma="none").score(rnn, batch, None, find_targets(rnn))
        assert torch.equal(again["weight_hh_l0"], scores["weight_hh_l0"])


def test_a_model_without_recurrent_layers_is_refused():
    with pytest.raises(ValueError, match="Sequential has no recurrent layer"):
        prune(nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2), sparsity=0.5)


def test_a_recurrent_layer_that_gets_no_input_is_named(model, x):
    model.unused = nn.GRU(2, 2)
    with pytest.raises(ValueError, match="recurrent layer 'unused' received no input"):
        prune(model, x, sparsity=0.5)


def test_an_unknown_criterion_is_refused(model, x):
    with pytest.raises(ValueError, match=r"criterion='jacobi': choose one of .*grasp, jacobian, magnitude"):
        prune(model, x, sparsity=0.5, criterion="jacobi")
    with pytest.raises(ValueError, match="criterion=None: give a criterion, or the name of one"):
        prune(model, x, sparsity=0.5, criterion=None)


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_patterns_reach_weights_beyond_the_recurrent_layers(model, criterion, x):
    masks = prune(model, x, sparsity=0.5, criterion=criterion, kernels=["head.weight", "*weight_hh_l0"])
    assert set(masks) == {"head.weight", "rnn.weight_hh_l0"}
    assert masks.kept == round(0.5 * (16 + 256))


def test_a_model_without_recurrent_layers_is_pruned_by_name():
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Linear(4, 5))
    masks = prune(model, None, sparsity=0.5, criterion="magnitude", kernels=["*"])
    assert set(masks) == {"0.weight", "1.weight"}
    assert masks.kept == 16


def test_the_jacobian_refuses_what_is_no_recurrent_kernel(model, x):
    with pytest.raises(ValueError, match=r"recurrent kernels only, and head\.weight is none"):
        prune(model, x, sparsity=0.5, kernels=["head.weight", "*weight_hh_l0"])
