"""Gradients of a loss: against autograd, what they leave alone, and losses that are none."""

import pytest
import torch
from torch import Tensor, nn

from sparse_rnn import prune
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.scores import criterion_named
from sparse_rnn.scores.loss import loss_gradients


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_are_those_of_backward(build, loss_fn, create_graph):
    model, batch = build("gru")
    gradients = loss_gradients(find_targets(model, ["*"]), batch, loss_fn, create_graph)
    assert all(parameter.grad is None for parameter in model.parameters())
    loss_fn(model, batch).backward()
    assert gradients.keys() == {name for name, p in model.named_parameters() if p.dim() > 1}
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient.detach(), model.get_parameter(name).grad)
        assert gradient.requires_grad == create_graph


def test_a_weight_that_the_loss_does_not_depend_on_has_a_gradient_of_zeros(build):
    model, batch = build("lstm")
    gradients = loss_gradients(find_targets(model, ["*"]), batch, lambda model, batch: model.rnn(batch[0])[0].sum())
    assert torch.equal(gradients["head.weight"], torch.zeros_like(model.head.weight))
    assert gradients["rnn.weight_hh_l0"].count_nonzero()


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_weights_whose_gradients_are_sparse_are_scored_as_others(criterion):
    def loss(module: nn.Module, x: Tensor) -> Tensor:
        return module(x)[0].square().mean()

    def scores(sparse: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(6, 3, sparse=sparse), nn.RNN(3, 4))
        return criterion_named(criterion).score(model, torch.arange(4).view(2, 2), loss, ["0.weight", "1.weight_hh_l0"])

    torch.testing.assert_close(scores(sparse=True), scores(sparse=False))


def test_gradients_exist_where_they_are_switched_off_and_weights_are_frozen(build, loss_fn):
    model, batch = build("gru")
    targets = find_targets(model)
    expected = loss_gradients(targets, batch, loss_fn)
    model.requires_grad_(False)
    with torch.no_grad():
        actual = loss_gradients(targets, batch, loss_fn)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_loss_that_fails_leaves_frozen_weights_frozen(build):
    model, batch = build("gru")
    model.rnn.weight_hh_l0.requires_grad_(False)

    def broken(model, batch):
        assert model.rnn.weight_hh_l0.requires_grad
        raise KeyError("of the project")

    with pytest.raises(KeyError, match="of the project"):
        loss_gradients(find_targets(model), batch, broken)
    assert not model.rnn.weight_hh_l0.requires_grad
    assert model.rnn.weight_ih_l0.requires_grad


def test_a_loss_without_a_gradient_is_refused(build, loss_fn):
    model, batch = build("gru")
    with pytest.raises(ValueError, match=r"The loss is a tensor of shape \(\) without a gradient"):
        loss_gradients(find_targets(model), batch, lambda model, batch: loss_fn(model, batch).detach())


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_weights_beyond_recurrent_layers_and_frozen_ones_are_scored(criterion, build, loss_fn):
    model, batch = build("lstm")
    model.rnn.weight_hh_l0.requires_grad_(False)
    masks = prune(model, batch, sparsity=0.5, criterion=criterion, loss_fn=loss_fn, kernels=["head*", "*hh*"])
    assert set(masks) == {"head.weight", "rnn.weight_hh_l0"}
    assert not model.rnn.weight_hh_l0.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_without_a_usable_loss_there_is_a_sentence(criterion, build):
    model, batch = build("gru")
    with pytest.raises(ValueError, match="needs a loss: give loss_fn"):
        prune(model, batch[0], sparsity=0.5, criterion=criterion)
    with pytest.raises(ValueError, match=r"The loss is a tensor of shape \(5, 3\)"):
        prune(model, batch, sparsity=0.5, criterion=criterion, loss_fn=lambda m, b: m(b[0]))
    with pytest.raises(ValueError, match="The loss is a NoneType"):
        prune(model, batch, sparsity=0.5, criterion=criterion, loss_fn=lambda m, b: None)
