"""Removed weights are 0 wherever a trainer has them, from when masks are brought in until they are released."""

import pytest
import torch
from last_step import Project

from sparse_rnn.callbacks.enforcement import Enforcement
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.sparsity.masks import Masks

KERNEL = "rnn.weight_hh_l0"


@pytest.fixture
def trainer(train):
    """A trainer that has trained a dense model, whose optimizer remembers all weights."""
    return train(Project, [], max_epochs=1)


@pytest.fixture
def force():
    force = Enforcement("dense")
    yield force
    force.release()


def masks_of(trainer, keep):
    kernels = find_targets(trainer.lightning_module)
    index = {name: torch.arange(kernel.parameter.numel()).view(kernel.shape) for name, kernel in kernels.items()}
    return Masks.of(kernels, {name: keep(own) for name, own in index.items()})


def step(trainer):
    for parameter in trainer.lightning_module.parameters():
        parameter.grad = torch.ones_like(parameter)
    trainer.optimizers[0].step()


def test_steps_leave_the_zeros_until_they_are_released(trainer, force):
    masks = masks_of(trainer, lambda index: index % 2 == 0)
    force.bring_in(trainer, masks)
    weight, removed = trainer.lightning_module.rnn.weight_hh_l0, ~masks[KERNEL]
    assert force.holds
    assert not force.take_stepped()
    step(trainer)
    assert not weight[removed].any()
    assert weight[~removed].all()
    assert force.take_stepped()
    assert not force.take_stepped()
    force.release()
    step(trainer)
    assert weight[removed].all()
    assert not force.holds
    assert not force.take_stepped()


def test_other_masks_take_the_place_of_those_before(trainer, force):
    before, after = (masks_of(trainer, lambda index, rest=rest: index % 2 == rest) for rest in (0, 1))
    force.bring_in(trainer, before)
    weight, state = trainer.lightning_module.rnn.weight_hh_l0, trainer.optimizers[0].state
    assert state[weight]["exp_avg"].all()
    force.clear_grown(trainer, before, after)
    grown = after[KERNEL] & ~before[KERNEL]
    for name in ("exp_avg", "exp_avg_sq"):
        assert not state[weight][name][grown].any()
        assert state[weight][name][~grown].all()
    force.bring_in(trainer, after)
    step(trainer)
    assert torch.equal(weight != 0, after[KERNEL])


class Adagrad(Project):
    state, beginning = "sum", 0.1

    def configure_optimizers(self):
        return torch.optim.Adagrad(self.parameters(), lr=0.5, initial_accumulator_value=0.1)


class Rprop(Project):
    state, beginning = "step_size", 0.02

    def configure_optimizers(self):
        return torch.optim.Rprop([{"params": self.parameters(), "lr": 0.02}], lr=0.5)


@pytest.mark.parametrize("build", [Adagrad, Rprop])
def test_weights_that_come_back_have_what_their_optimizer_begins_with(train, force, build):
    trainer = train(build, [], max_epochs=1)
    before, after = (masks_of(trainer, lambda index, rest=rest: index % 2 == rest) for rest in (0, 1))
    weight, [optimizer] = trainer.lightning_module.rnn.weight_hh_l0, trainer.optimizers
    force.bring_in(trainer, before)
    kept = optimizer.state[weight][build.state][before[KERNEL]].clone()
    force.clear_grown(trainer, before, after)
    states = optimizer.state[weight][build.state]
    assert (states[after[KERNEL]] == torch.tensor(build.beginning)).all()
    assert torch.equal(states[before[KERNEL]], kept)


def test_a_checkpoint_that_was_filled_before_has_the_zeros_too(trainer, force):
    masks = masks_of(trainer, lambda index: index % 3 == 0)
    dense = {name: value.clone() for name, value in trainer.lightning_module.state_dict().items()}
    checkpoint = {"state_dict": dense}
    force.zero_in_checkpoint(trainer, masks, checkpoint)
    assert torch.equal(checkpoint["state_dict"][KERNEL] != 0, masks[KERNEL])
    assert torch.equal(trainer.lightning_module.rnn.weight_hh_l0 != 0, masks[KERNEL])
    assert not force.holds
