import copy

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from sparse_rnn.callbacks import DynamicSparsity, GradualPruning, OneShotPruning, RateByFanIn, StructuredPruning
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LinearDecay, SequenceClassifier
from sparse_rnn.pruning.schedules import CosineDecay, Cubic

UNITS, FEATURES, STEPS, LR = 16, 3, 12, 0.08


class Rates(Callback):
    """Keeps the rate that each optimizer step was made with, and the one that was there afterwards."""

    def __init__(self):
        self.inside, self.outside, self.fan_in = [], [], []

    def on_train_start(self, trainer, pl_module):
        trainer.optimizers[0].register_step_pre_hook(
            lambda optimizer, *_: self.inside.append(optimizer.param_groups[0]["lr"])
        )

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.outside.append(trainer.optimizers[0].param_groups[0]["lr"])
        if "fan_in" in trainer.callback_metrics:
            self.fan_in.append(trainer.callback_metrics["fan_in"].item())


class Batches(list):
    """Batches, as a loader; Lightning takes a plain list for several loaders."""


def batches(count=STEPS):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, 5, FEATURES, generator=generator)
    return Batches(zip(x, torch.randint(2, (count, 4), generator=generator), strict=True))


def build(cell="gru", lr=LR, make=torch.optim.Adam, **options):
    torch.manual_seed(0)
    return SequenceClassifier(
        FEATURES, 2, cell, UNITS, init_scale=0.5, optimizer=lambda weights: make(weights, lr=lr), **options
    )


def trainer(folder, *callbacks, steps=STEPS, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    quiet |= {
        "enable_checkpointing": False,
        "max_epochs": -1,
        "max_steps": steps,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
    }
    return Trainer(accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), **quiet | options)


def one_shot(sparsity=0.75):
    return OneShotPruning(sparsity, "Random", allocation="per_kernel")


@pytest.mark.each_value
@pytest.mark.parametrize(("pruning", "fan_in"), [(None, UNITS), (one_shot(), UNITS / 4), (one_shot(0.99), 1.0)])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "peephole_lstm"])
def test_a_fit_is_that_at_the_rate_over_the_root_of_the_fan_in(tmp_path, cell, pruning, fan_in):
    pruned = [] if pruning is None else [pruning]
    schedule = {"lr_scheduler": LinearDecay}
    scaled, plain = build(cell, **schedule), build(cell, LR / fan_in**0.5, **schedule)
    trainer(tmp_path, *copy.deepcopy(pruned), RateByFanIn()).fit(scaled, batches(), batches(1))
    trainer(tmp_path, *copy.deepcopy(pruned)).fit(plain, batches(), batches(1))
    for one, other in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_rate_grows_as_weights_go_and_outside_of_steps_is_the_optimizers_own(tmp_path):
    rates = Rates()
    pruning = GradualPruning(0.75, Cubic(2, 8, 2), "magnitude", allocation="per_kernel")
    trainer(tmp_path, pruning, RateByFanIn(), rates).fit(build(), batches(), batches(1))
    left = [UNITS] * 4 + [UNITS * (1 - 0.75 * (1 - (1 - t) ** 3)) for t in (1 / 3, 2 / 3) for _ in "ab"]
    left += [UNITS / 4] * (STEPS - len(left))
    assert rates.fan_in == pytest.approx(left, rel=0.01)
    assert rates.inside == pytest.approx([LR / k**0.5 for k in left], rel=0.01)
    assert rates.outside == [LR] * STEPS


def test_only_kernels_that_read_a_state_count_over_all_layers(tmp_path):
    rates, model = Rates(), build(num_layers=2, bidirectional=True)
    pruning = OneShotPruning(0.5, "Random", kernels=["*weight_ih*", "*weight_hh_l1"], allocation="per_kernel")
    trainer(tmp_path, pruning, RateByFanIn(), rates, steps=1).fit(model, batches(), batches(1))
    assert rates.fan_in == [(3 * UNITS + UNITS / 2) / 4]


def test_a_layer_that_is_made_smaller_counts_as_small_as_it_is(tmp_path):
    rates, shrinking = Rates(), StructuredPruning(units=4, at=1, criterion="UnitMagnitude", num_samples=4)
    trainer(tmp_path, shrinking, RateByFanIn(), rates).fit(build(), batches(STEPS // 2), batches(1))
    assert rates.fan_in == [UNITS] * (STEPS // 2) + [4] * (STEPS // 2)


@pytest.mark.parametrize("scheduler", [LinearDecay, lambda optimizer: ExponentialLR(optimizer, 0.9)])
def test_schedulers_see_the_optimizers_own_rates(tmp_path, scheduler):
    scaled, own = Rates(), Rates()
    for callbacks in ([RateByFanIn(), scaled], [own]):
        model = build(lr_scheduler=scheduler, lr_interval="step")
        trainer(tmp_path, one_shot(), *callbacks).fit(model, batches(), batches(1))
    assert scaled.outside == own.outside
    assert scaled.inside == pytest.approx([rate / (UNITS / 4) ** 0.5 for rate in own.inside])


def test_a_resumed_run_is_the_unbroken_one(tmp_path):
    class Saves(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    def callbacks():
        return DynamicSparsity("random", CosineDecay(every=2), sparsity=0.75, criterion="Random"), RateByFanIn()

    whole, resumed = (build(lr_scheduler=LinearDecay) for _ in range(2))
    trainer(tmp_path, *callbacks(), Saves()).fit(whole, batches(STEPS // 2), batches(1))
    middle = {"ckpt_path": tmp_path / "0.ckpt", "weights_only": False}
    trainer(tmp_path, *callbacks()).fit(resumed, batches(STEPS // 2), batches(1), **middle)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


class TwoOptimizers(LightningModule):
    """Manual optimisation, by two optimizers, one of which fails when it is told to."""

    def __init__(self, fails=False):
        super().__init__()
        self.automatic_optimization = False
        torch.manual_seed(0)
        self.rnn, self.head, self.fails = nn.GRU(FEATURES, UNITS, batch_first=True), nn.Linear(UNITS, 2), fails

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)

    def training_step(self, batch, batch_idx):
        self.manual_backward(self.loss(batch))
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self):
        make = Failing if self.fails else torch.optim.SGD
        return make(self.rnn.parameters(), lr=LR), torch.optim.SGD(self.head.parameters(), lr=2 * LR)


class Failing(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)
        raise KeyError("broken")


class WarmUp(TwoOptimizers):
    """Sets its rates by hand, where ``where`` says; in automatic optimisation, or by hand with a closure."""

    def __init__(self, where, by_hand):
        super().__init__()
        self.where, self.automatic_optimization = where, not by_hand

    def set_rate(self, where):
        if where == self.where:
            for group in self.optimizers().param_groups:
                group["lr"] = 0.01 * (self.global_step + 1)

    def training_step(self, batch, batch_idx):
        self.set_rate("training_step")
        if self.automatic_optimization:
            return self.loss(batch)
        return self.optimizers().step(lambda: self.manual_backward(self.loss(batch)))

    def on_train_batch_start(self, batch, batch_idx):
        self.set_rate("on_train_batch_start")

    def on_before_optimizer_step(self, optimizer):
        self.set_rate("on_before_optimizer_step")

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        optimizer.step(optimizer_closure)  # not by its name

    def configure_optimizers(self):
        return Noting(self.parameters(), lr=LR)


class Noting(torch.optim.SGD):
    """Notes the rates that it steps with."""

    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        self.used = [*getattr(self, "used", ()), self.param_groups[0]["lr"]]
        super().step()
        return loss


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("where", ["on_train_batch_start", "training_step", "on_before_optimizer_step"])
def test_a_rate_that_the_project_sets_is_scaled_wherever_it_sets_it(tmp_path, where, by_hand):
    run = trainer(tmp_path, RateByFanIn(), steps=4)
    run.fit(WarmUp(where, by_hand), batches())
    [optimizer] = run.optimizers
    assert optimizer.used == pytest.approx([rate / UNITS**0.5 for rate in (0.01, 0.02, 0.03, 0.04)])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.04)


def test_both_optimizers_of_a_project_take_steps_over_the_root(tmp_path):
    model, [batch] = TwoOptimizers(), batches(1)
    before = copy.deepcopy(model)
    trainer(tmp_path, RateByFanIn(), steps=2).fit(model, Batches([batch]))
    nn.functional.cross_entropy(before.head(before.rnn(batch[0])[0][:, -1]), batch[1]).backward()
    for name, parameter in before.named_parameters():
        rate = LR if name.startswith("rnn") else 2 * LR
        stepped = parameter.detach() - rate / UNITS**0.5 * parameter.grad
        torch.testing.assert_close(model.get_parameter(name).detach(), stepped)


def test_a_step_that_fails_leaves_the_optimizers_own_rate_and_no_hook(tmp_path):
    run = trainer(tmp_path, RateByFanIn())
    with pytest.raises(KeyError, match="broken"):
        run.fit(TwoOptimizers(fails=True), batches())
    [first, _] = run.optimizers
    assert first.param_groups[0]["lr"] == LR
    assert not first._optimizer_step_pre_hooks
    assert not first._optimizer_step_post_hooks


def test_it_serves_one_fit_after_another(tmp_path):
    rate = RateByFanIn()
    models = [build(), build()]
    for model in models:
        trainer(tmp_path, rate).fit(model, batches(), batches(1))
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


class Linear(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(FEATURES, 2)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.layer(batch[0][:, -1]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=LR)


def test_a_model_without_recurrent_kernels_is_refused(tmp_path):
    with pytest.raises(UsageError, match="recurrent"):
        trainer(tmp_path, RateByFanIn()).fit(Linear(), batches())


def test_two_of_them_are_refused_as_they_would_divide_twice(tmp_path):
    with pytest.raises(UsageError, match="RateByFanIn twice"):
        trainer(tmp_path, RateByFanIn(), RateByFanIn()).fit(build(), batches(), batches(1))


@pytest.mark.parametrize("order", [1, -1])
def test_whoever_listens_to_a_step_sees_the_rate_that_it_was_made_with(tmp_path, order):
    class Listening(Callback):
        def on_train_start(self, trainer, pl_module):
            [optimizer] = trainer.optimizers
            optimizer.register_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))

    rates = []
    trainer(tmp_path, *[Listening(), RateByFanIn()][::order]).fit(build(), batches(), batches(1))
    assert rates == [pytest.approx(LR / UNITS**0.5)] * STEPS
