"""When schedulers of learning rates are stepped, for both models."""

from math import cos, pi

import lightning.pytorch as pl
import pytest
from learning_rates import BATCHES, LR, Rates, fit, model
from lightning.pytorch.cli import ReduceLROnPlateau as NamedPlateau
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel, LinearDecay, SequenceClassifier

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


@pytest.mark.parametrize("kind", [SequenceClassifier, LanguageModel])
@pytest.mark.parametrize(("interval", "halved"), [("epoch", [0] * 6 + [1] * 6), ("step", list(range(12)))])
def test_other_schedulers_step_after_each_epoch_or_each_step(tmp_path, kind, interval, halved):
    module = model(kind, lambda optimizer: StepLR(optimizer, 1, gamma=0.5), lr_interval=interval)
    assert fit(tmp_path, module, Rates(), max_epochs=2) == [LR * 0.5**times for times in halved]


@pytest.mark.parametrize("kind", [SequenceClassifier, LanguageModel])
def test_a_cosine_of_pytorch_runs_its_course_in_a_training_shorter_than_an_epoch(tmp_path, kind):
    module = model(kind, lambda optimizer: CosineAnnealingLR(optimizer, T_max=5), lr_interval="step")
    rates = fit(tmp_path, module, Rates(), max_steps=5, max_epochs=-1)
    assert rates == pytest.approx([LR * (1 + cos(pi * step / 5)) / 2 for step in range(5)])


IDLE = (
    "is stepped after each epoch, but the training ends after 5 steps and its first epoch has 6: the learning rate "
    "never changes."
)


@pytest.mark.parametrize("kind", [SequenceClassifier, LanguageModel])
def test_a_scheduler_that_no_epoch_s_end_steps_is_named(tmp_path, kind):
    module = model(kind, lambda optimizer: StepLR(optimizer, 1, gamma=0.5))
    with pytest.warns(UserWarning, match=f"^StepLR {IDLE} Give lr_interval=step, or LinearDecay or Cos"):
        rates = fit(tmp_path, module, Rates(), max_steps=5, max_epochs=-1)
    assert rates == [LR] * 5


def test_a_plateau_that_no_epoch_s_end_looks_for_is_named(tmp_path):
    module = model(LanguageModel, ReduceLROnPlateau)
    with pytest.warns(UserWarning, match=f"^ReduceLROnPlateau {IDLE} Give LinearDecay or CosineAnnealing"):
        fit(tmp_path, module, Rates(), max_steps=5, max_epochs=-1, val_check_interval=2)


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": 6},
        {"max_epochs": 1, "max_steps": -1},
        {"max_steps": 2, "accumulate_grad_batches": 3},
        {"limit_train_batches": 5},
    ],
)
def test_where_an_epoch_ends_nothing_is_said(tmp_path, options):
    """Warnings are errors here."""
    fit(tmp_path, model(LanguageModel, ReduceLROnPlateau), Rates(), **{"max_steps": 5, "max_epochs": -1} | options)


@pytest.mark.parametrize(("kind", "metric"), [(SequenceClassifier, "val/error"), (LanguageModel, "val/ppl")])
@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_plateau_is_looked_for_after_each_epoch(tmp_path, kind, metric, interval):
    module = model(kind, lambda optimizer: ReduceLROnPlateau(optimizer, factor=0.5, patience=0), lr_interval=interval)
    seen = []

    class Never(pl.Callback):
        def on_validation_end(self, trainer, module):
            seen.append(trainer.callback_metrics[metric])
            trainer.callback_metrics[metric].fill_(len(seen))

    options = {"max_epochs": 3, "num_sanity_val_steps": 0}
    rates = fit(tmp_path, module, Rates(), [Never()], **options)
    assert rates[::BATCHES] == [LR, LR, LR / 2]


def test_an_unknown_interval_is_named():
    with pytest.raises(UsageError, match="lr_interval"):
        model(SequenceClassifier, LinearDecay, lr_interval="batch").configure_optimizers()


def test_a_plateau_waits_for_validations(tmp_path):
    module = model(SequenceClassifier, lambda optimizer: ReduceLROnPlateau(optimizer, factor=0.5, patience=0))
    rates = fit(tmp_path, module, Rates(), max_epochs=5, check_val_every_n_epoch=2, num_sanity_val_steps=0)
    assert len(rates) == 5 * BATCHES


def test_a_plateau_follows_the_metric_that_it_names(tmp_path):
    seen = []

    class Plateau(NamedPlateau):
        def step(self, metrics, epoch=None):
            seen.append(float(metrics))

    class Loss(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.callback_metrics["train/loss"].fill_(7)

    module = model(SequenceClassifier, lambda optimizer: Plateau(optimizer, monitor="train/loss"))
    fit(tmp_path, module, Rates(), [Loss()], max_epochs=2)
    assert seen == [7, 7]


def test_a_decay_behind_a_warm_up_falls_to_0_at_the_end_of_the_training(tmp_path):
    def scheduler(optimizer):
        return SequentialLR(optimizer, [LinearLR(optimizer, 0.25, total_iters=3), LinearDecay(optimizer)], [3])

    rates = fit(tmp_path, model(SequenceClassifier, scheduler), Rates(), max_epochs=2)
    assert rates == pytest.approx([LR / 4, LR / 2, LR * 3 / 4, *(LR * (1 - step / 9) for step in range(9))])


def test_a_decay_before_another_ends_where_that_begins(tmp_path):
    def scheduler(optimizer):
        return SequentialLR(optimizer, [LinearDecay(optimizer), ConstantLR(optimizer, 0.5, 100)], [4])

    rates = fit(tmp_path, model(SequenceClassifier, scheduler), Rates(), max_epochs=1)
    assert rates == pytest.approx([*(LR * (1 - step / 4) for step in range(4)), LR / 2, LR / 2])


def test_a_decay_in_a_chain_has_the_length_of_the_training(tmp_path):
    def scheduler(optimizer):
        return ChainedScheduler([LinearDecay(optimizer)])

    rates = fit(tmp_path, model(SequenceClassifier, scheduler), Rates(), max_epochs=1)
    assert rates == pytest.approx([LR * (1 - step / 6) for step in range(6)])
