"""A training step that is borrowed: it computes what it always does, and leaves nothing behind."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from sparse_rnn.callbacks.borrowing.side_effects import side_effect_free


class Project(LightningModule):
    """A classifier with an inner LightningModule, optimised automatically."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)
        self.head = Head()

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.head.linear(self.rnn(x)[0][:, -1]), y)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("loss", loss)
        self.log_dict({"twice": 2 * loss})
        self.print("said")
        self.head.training_step(batch, batch_idx)
        for logger in self.loggers:
            logger.log_metrics({"own": 1.0}, step=self.global_step)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Head(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def training_step(self, batch, batch_idx):
        self.print("said")


class ByHand(Project):
    """The same by hand, with all that can leave a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        first.param_groups[0]["lr"] = 0.5
        self.toggle_optimizer(first)
        loss = super().training_step(batch, batch_idx)
        first.zero_grad()
        self.manual_backward(loss)
        nn.utils.clip_grad_norm_(self.parameters(), 1e-9)
        first.step()
        self.untoggle_optimizer(first)

        def closure():
            loss = self.loss(batch)
            (3 * loss).backward(gradient=torch.tensor(2.0))
            return loss

        self.rnn.weight_hh_l0.grad = None
        second.step(closure)
        self.rnn.weight_ih_l0.data.mul_(2)
        for scheduler in self.lr_schedulers():
            scheduler.step()

    def configure_optimizers(self):
        body = torch.optim.Adam(self.rnn.parameters(), lr=0.01)
        head = torch.optim.SGD(self.head.parameters(), lr=0.01, momentum=0.9)
        schedules = [torch.optim.lr_scheduler.StepLR(body, 1), torch.optim.lr_scheduler.ExponentialLR(head, 0.9)]
        return [body, head], schedules


METHODS = ("log", "log_dict", "print", "manual_backward", "step")


def facts(trainer, module):
    """All that a step can change."""
    optimizers, schedulers = trainer.optimizers, [config.scheduler for config in trainer.lr_scheduler_configs]
    parts = [*module.modules(), *optimizers, *schedulers, *trainer.strategy._lightning_optimizers]
    return {
        "weights": [parameter.tolist() for parameter in module.parameters()],
        "gradients": [None if p.grad is None else p.grad.tolist() for p in module.parameters()],
        "flags": [parameter.requires_grad for parameter in module.parameters()],
        "states": [str(optimizer.state_dict()) for optimizer in optimizers],
        "schedules": [str(scheduler.state_dict()) for scheduler in schedulers],
        "metrics": sorted(trainer.logged_metrics),
        "steps": trainer.global_step,
        "replaced": [[vars(part).get(name) for name in METHODS] for part in parts],
        "backward": Tensor.backward,
        "loggers": list(trainer.loggers),
    }


class Borrowing(Callback):
    """Borrows the training step at a moment of the fit."""

    def __init__(self, moment, fails=False) -> None:
        self.fails = fails
        setattr(self, moment, self.borrow)

    def borrow(self, trainer, pl_module, *args):
        if trainer.global_step not in (0, 2, 4):
            return
        before = facts(trainer, pl_module)
        try:
            with side_effect_free(trainer, pl_module) as self.losses:
                self.returned = pl_module.training_step(DATA, 0)
                if self.fails:
                    raise KeyError("of the project")
        except KeyError:
            assert self.fails
        after = facts(trainer, pl_module)
        for name, value in before.items():
            assert after[name] == value, name
        self.loss = pl_module.loss(DATA)
        self.borrowed = True


X = torch.randn(8, 5, 3, generator=torch.Generator().manual_seed(0))
DATA = (X, torch.arange(8) % 4)


@pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the logging interval")
@pytest.mark.each_value
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("moment", ["on_fit_start", "on_train_batch_end"])
@pytest.mark.parametrize("build", [Project, ByHand])
def test_nothing_is_left_behind(train, tmp_path, capsys, build, moment, fails):
    def run(*callbacks):
        logger = CSVLogger(tmp_path, f"{len(callbacks)} callbacks")
        options = {"max_epochs": 1, "logger": logger, "limit_train_batches": 3, "log_every_n_steps": 1}
        module = train(build, list(callbacks), **options).lightning_module
        logged = Path(logger.log_dir, "metrics.csv").read_text()
        return [*module.parameters(), torch.rand(2)], logged, capsys.readouterr().out.count("said")

    borrowing = Borrowing(moment, fails)
    (plain, logged, said), (borrowed, logged_too, said_too) = run(), run(borrowing)
    assert borrowing.borrowed
    assert said == said_too == 6
    assert logged == logged_too
    assert all(map(torch.equal, plain, borrowed))


def test_the_losses_of_a_step_by_hand_are_those_it_would_have_gone_back_through(train):
    """Weighed by the gradients that were given, each closure run once, all at the weights that are put back."""
    borrowing = Borrowing("on_fit_start")
    train(ByHand, [borrowing], max_epochs=1, limit_train_batches=1)
    first, second = borrowing.losses
    assert first.requires_grad
    assert second.requires_grad
    torch.testing.assert_close(first, borrowing.loss)
    torch.testing.assert_close(second, 6 * borrowing.loss)


def test_the_gradients_of_the_losses_are_those_at_the_weights_that_are_put_back(train):
    class Differentiating(Borrowing):
        def borrow(self, trainer, pl_module, *args):
            super().borrow(trainer, pl_module, *args)
            kernel = pl_module.rnn.weight_hh_l0
            (self.gradient,) = torch.autograd.grad(self.losses[0], kernel)
            (self.expected,) = torch.autograd.grad(self.loss, kernel)

    borrowing = Differentiating("on_fit_start")
    train(ByHand, [borrowing], max_epochs=1, limit_train_batches=1)
    torch.testing.assert_close(borrowing.gradient, borrowing.expected)


def test_an_automatic_step_returns_its_loss_and_goes_back_through_none(train):
    borrowing = Borrowing("on_fit_start")
    train(Project, [borrowing], max_epochs=1, limit_train_batches=1)
    assert borrowing.losses == []
    torch.testing.assert_close(borrowing.returned, borrowing.loss)


def test_a_closure_runs_once_and_its_value_is_that_of_the_step(train):
    calls, returned = [], []

    class Closing(ByHand):
        def training_step(self, batch, batch_idx):
            def closure():
                calls.append(batch_idx)
                return self.loss(batch)

            bare, wrapped = self.optimizers(use_pl_optimizer=False)[0], self.optimizers()[1]
            returned.extend([bare.step(closure), wrapped.step(closure=closure), bare.step()])

    borrowing = Borrowing("on_fit_start")
    train(Closing, [borrowing], max_epochs=1, limit_train_batches=0)
    assert len(calls) == 2
    first, second, nothing = returned
    assert nothing is None
    torch.testing.assert_close([first, second], [borrowing.loss] * 2)
