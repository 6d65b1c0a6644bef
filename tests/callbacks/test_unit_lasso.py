from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from sparse_rnn import StructuredPruning, UnitLasso
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured.group_lasso import group_lasso


class Project(LightningModule):
    def __init__(self, optimizer=torch.optim.SGD):
        super().__init__()
        self.rnn, self.head, self.kind = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 4), optimizer

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)

    def configure_optimizers(self):
        return self.kind(self.parameters(), lr=0.1)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_each_step_ends_with_the_proximal_one(train, data, kind):
    mine = train(lambda: Project(kind), [UnitLasso(strength=1e-3)], max_epochs=1).lightning_module
    other = Project(kind)
    other.load_state_dict(train(Project, [], max_epochs=0).lightning_module.state_dict())
    optimizer = other.configure_optimizers()
    [group] = group_lasso(other, next(iter(data)), lambda model, batch: model.training_step(batch, 0))
    for step, batch in enumerate(data, start=1):
        optimizer.zero_grad()
        other.training_step(batch, 0).backward()
        optimizer.step()
        rate = torch.full((8,), 0.1)
        if kind is torch.optim.Adam:
            squares = {name: optimizer.state[p]["exp_avg_sq"] for name, p in other.named_parameters()}
            for unit in range(8):
                rows = squares["rnn.weight_ih_l0"].view(3, 8, 3)[:, unit].flatten()
                columns = [squares[name][:, unit] for name in ("rnn.weight_hh_l0", "head.weight")]
                rate[unit] /= (torch.cat([rows, *columns]).mean() / (1 - 0.999**step)).sqrt()
        group.step_(rate * 1e-3)
    for name, value in mine.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name])


class Both(Project):
    """Trains its layers by hand, with an optimizer for each, or one for both."""

    def __init__(self, split):
        super().__init__()
        self.automatic_optimization, self.split = False, split

    def training_step(self, batch, batch_idx):
        found = self.optimizers()
        optimizers = found if isinstance(found, list) else [found]
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        for optimizer in optimizers:
            optimizer.step()

    def configure_optimizers(self):
        parts = [self.head.parameters(), self.rnn.parameters()] if self.split else [self.parameters()]
        return [torch.optim.Adam(part, 1e-3) for part in parts]


def test_weights_of_a_group_that_several_optimizers_train_are_stepped_on_as_if_it_were_one(train):
    one, several = (
        train(lambda split=split: Both(split), [UnitLasso(0.1)], max_epochs=1).lightning_module.state_dict()
        for split in (False, True)
    )
    for name, value in one.items():
        torch.testing.assert_close(several[name], value, rtol=0, atol=0)


class Stumbles(Project):
    """Makes no step at one of the batches: its gradients overflow, or it has no loss there."""

    def __init__(self, optimizer, at, overflows):
        super().__init__(optimizer)
        self.at, self.overflows = at, overflows

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if batch_idx != self.at:
            return loss
        return loss * torch.inf if self.overflows else None


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize(("at", "overflows"), [(0, True), (1, True), (1, False)])
@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_call_of_the_optimizer_that_makes_no_step_is_followed_by_none(train, kind, at, overflows):
    def fit(batches):
        # Of optimizers that are not fused, a scaler that has found an overflow calls no step.
        scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=4.0))
        options = {"max_epochs": 1, "limit_train_batches": batches, "plugins": [scaled] if overflows else []}
        build = lambda: Stumbles(partial(kind, fused=True), at, overflows)  # noqa: E731 - a function in a line
        return train(build, [UnitLasso(strength=0.01)], **options).lightning_module

    before, none_made, after = fit(at), fit(at + 1), fit(at + 2)
    for name, value in before.state_dict().items():
        assert torch.equal(none_made.state_dict()[name], value)
    assert not torch.equal(after.head.weight, before.head.weight)
    [group] = group_lasso(after, torch.zeros(2, 5, 3), lambda model, x: model.head(model.rnn(x)[0]))
    assert group.norms().min() > 0
    assert group.norms().max() < torch.inf


def test_an_optimizer_that_keeps_its_mean_squares_in_another_way_steps_as_one_that_keeps_none(train):
    class Keeps(torch.optim.SGD):
        def step(self, closure=None):
            loss = super().step(closure)
            for options in self.param_groups:
                for parameter in options["params"]:
                    self.state[parameter]["exp_avg_sq"] = parameter.grad.square()
            return loss

    torch.optim.SGD([torch.zeros(1)])  # from its first instance on the hooks of a class are called by super().step()
    one, other = (
        train(lambda kind=kind: Project(kind), [UnitLasso(0.1)], max_epochs=1).lightning_module.state_dict()
        for kind in (torch.optim.SGD, Keeps)
    )
    for name, value in one.items():
        assert torch.equal(other[name], value)


class Taught(Project):
    """Has a layer that never runs, and a teacher that is not trained."""

    def __init__(self, freeze=True):
        super().__init__()
        self.unused, self.teacher = nn.GRU(3, 4), nn.GRU(3, 6, batch_first=True).requires_grad_(not freeze)
        self.taught = nn.Linear(6, 4)

    def training_step(self, batch, batch_idx):
        own, wanted = self.head(self.rnn(batch[0])[0]), self.taught(self.teacher(batch[0])[0])
        return super().training_step(batch, batch_idx) + (own - wanted.detach()).square().mean()

    def configure_optimizers(self):
        return self.kind([*self.rnn.parameters(), *self.head.parameters()], lr=0.1)


def test_layers_that_do_not_run_or_are_frozen_stay_as_they_are(train):
    start = train(Taught, [], max_epochs=0).lightning_module
    lasso = UnitLasso(strength=0.3)
    after = train(Taught, [lasso, StructuredPruning(criterion="Exact", at=1.0)]).lightning_module
    assert list(lasso.zero_units) == ["rnn.l0"]
    assert not torch.equal(after.rnn.weight_hh_l0, start.rnn.weight_hh_l0)
    for layer in ("unused", "teacher"):
        for name, value in start.get_submodule(layer).state_dict().items():
            assert torch.equal(after.get_submodule(layer).state_dict()[name], value)
    with pytest.raises(
        UsageError, match=r"of which teacher\.weight_ih_l0 is trained by no optimizer: train it, or freeze"
    ):
        train(lambda: Taught(freeze=False), [lasso])


def test_zero_units_are_counted_logged_and_removed(train):
    class Sizes(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append((lasso.zero_units["rnn.l0"], pl_module.rnn.hidden_size))

    def build():
        model = Project()
        with torch.no_grad():
            for weight in (model.rnn.weight_hh_l0, model.head.weight):
                weight[:, :3] *= 0.01
            model.rnn.weight_ih_l0.view(3, 8, 3)[:, :3] *= 0.01
        return model

    seen = []
    lasso = UnitLasso(strength=0.1)
    trainer = train(build, [lasso, StructuredPruning(criterion="Exact", at=8), Sizes()], max_epochs=9)
    zero, left = seen[7]
    assert 3 <= zero < 8
    assert left == 8 - zero
    assert trainer.lightning_module.head.in_features == left
    assert trainer.callback_metrics["units/zero"] == trainer.callback_metrics["units/zero/rnn.l0"] == seen[8][0]
    assert not trainer.optimizers[0]._optimizer_step_post_hooks


def test_a_resumed_run_equals_the_unbroken_one(train, tmp_path):
    trainer = train(Project, [UnitLasso(strength=0.3)], max_epochs=1)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    unbroken = train(Project, [UnitLasso(strength=0.3)], max_epochs=2).lightning_module
    resumed = train(Project, [UnitLasso(strength=0.3)], ckpt_path=tmp_path / "first.ckpt").lightning_module
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_weights_that_are_not_trained_are_refused(train):
    def build():
        model = Project(lambda _, lr: torch.optim.SGD(model.rnn.parameters(), lr))
        return model

    with pytest.raises(UsageError, match=r"of which head\.weight is trained by no optimizer"):
        train(build, [UnitLasso(strength=0.3)])


def test_a_strength_that_cannot_be_used():
    with pytest.raises(UsageError, match=r"strength=0: give a number in \(0, inf\)"):
        UnitLasso(strength=0)
