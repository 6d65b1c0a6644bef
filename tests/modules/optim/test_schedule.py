"""Learning rates over a training: against the closed form, step by step, for both models, and on resume."""

from math import cos, pi

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR
from torch.utils.data import TensorDataset

from sparse_rnn.data import BatchLoader
from sparse_rnn.data.loaders import go_on_where_stopped
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import CosineAnnealing, LanguageModel, LinearDecay, SequenceClassifier

BATCHES, LR = 6, 0.5
FORMS = {LinearDecay: lambda share: 1 - share, CosineAnnealing: lambda share: (1 + cos(pi * share)) / 2}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:Checkpoint directory .* exists and is not empty"
)


class StoppedError(Exception):
    pass


class Rates(pl.Callback):
    """Notes the learning rate of every step, and ends the training before a step if it is to."""

    def __init__(self, stop=None):
        self.stop, self.rates = stop, []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.global_step == self.stop:
            raise StoppedError
        self.rates.append(optimizer.param_groups[0]["lr"])


class Data(pl.LightningDataModule):
    """Six batches of what a model reads."""

    def __init__(self, kind):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        words = torch.randint(9, (2 * BATCHES, 4), generator=generator)
        x = torch.randn(2 * BATCHES, 4, 3, generator=generator)
        self.samples = TensorDataset(*((words, words) if kind is LanguageModel else (x, words[:, 0] % 2)))

    def train_dataloader(self):
        go_on_where_stopped(self.trainer)
        return BatchLoader(self.samples, batch_size=2, shuffle=True)

    def val_dataloader(self):
        return BatchLoader(self.samples, batch_size=2)


def model(kind, scheduler, **options):
    torch.manual_seed(0)
    options |= {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=LR), "lr_scheduler": scheduler}
    if kind is LanguageModel:
        return LanguageModel(9, hidden_size=5, embedding_size=3, **options)
    return SequenceClassifier(3, 2, hidden_size=5, **options)


def fit(folder, module, rates, callbacks=(), ckpt_path=None, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=folder, callbacks=[rates, *callbacks], **quiet | options)
    trainer.fit(module, datamodule=Data(type(module)), ckpt_path=ckpt_path)
    return rates.rates


LENGTHS = {
    "epochs": ({"max_epochs": 2}, 12),
    "steps": ({"max_steps": 4, "max_epochs": -1}, 4),
    "accumulation": ({"max_epochs": 2, "accumulate_grad_batches": 4}, 4),
    "epochs before steps": ({"max_steps": 100, "max_epochs": 1}, 6),
}


@pytest.mark.each_value
@pytest.mark.parametrize("kind", [SequenceClassifier, LanguageModel])
@pytest.mark.parametrize("decay", FORMS)
@pytest.mark.parametrize("length", LENGTHS)
def test_rates_follow_the_closed_form_to_the_end_of_the_training(tmp_path, kind, decay, length):
    options, steps = LENGTHS[length]
    rates = fit(tmp_path, module := model(kind, decay), Rates(), **options)
    assert rates == [FORMS[decay](step / steps) * LR for step in range(steps)]
    assert module.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_accumulation_may_change_from_epoch_to_epoch(tmp_path):
    accumulation = GradientAccumulationScheduler({0: 3, 1: 2})
    module = model(SequenceClassifier, LinearDecay)
    rates = fit(tmp_path, module, Rates(), [accumulation], max_epochs=2)
    assert rates == [LR * (1 - step / 5) for step in range(5)]


@pytest.mark.each_value
@pytest.mark.parametrize("kind", [SequenceClassifier, LanguageModel])
@pytest.mark.parametrize("stop", [3, 6, 8])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, kind, stop):
    whole = model(kind, LinearDecay)
    expected = fit(tmp_path / "whole", whole, Rates(), max_epochs=2)
    save = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    with pytest.raises(StoppedError):
        fit(tmp_path, model(kind, LinearDecay), Rates(stop), [save], max_epochs=2)
    resumed = model(kind, LinearDecay)
    path = tmp_path / f"step={stop}.ckpt"
    assert fit(tmp_path, resumed, Rates(), [save], path, max_epochs=2) == expected[stop:]
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_resumed_run_that_is_to_be_longer_decays_over_its_new_length(tmp_path):
    save = ModelCheckpoint(tmp_path, filename="{step}")
    fit(tmp_path, model(SequenceClassifier, LinearDecay), Rates(), [save], max_epochs=1)
    path = tmp_path / "step=6.ckpt"
    rates = fit(tmp_path, model(SequenceClassifier, LinearDecay), Rates(), [save], path, max_epochs=3)
    # The rate of the first step is in the checkpoint.
    assert rates[1:] == [LR * (1 - step / 18) for step in range(7, 18)]


@pytest.mark.parametrize("decay", FORMS)
def test_any_loop_gives_the_number_of_steps_itself(decay):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=LR)
    scheduler = decay(optimizer, total_steps=4)
    rates = []
    for _ in range(5):
        rates += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    assert rates == [FORMS[decay](step / 4) * LR for step in range(4)] + [pytest.approx(0, abs=1e-12)]
    scheduler.step()  # whoever trains on does so at a rate of 0
    assert scheduler.get_last_lr() == [pytest.approx(0, abs=1e-12)]


def test_a_number_of_steps_that_was_given_counts(tmp_path):
    module = model(SequenceClassifier, lambda optimizer: LinearDecay(optimizer, total_steps=4))
    assert fit(tmp_path, module, Rates(), max_epochs=1) == [LR * max(0, 1 - step / 4) for step in range(6)]


def test_a_training_without_a_known_end_is_refused(tmp_path):
    message = "^LinearDecay ends with the training, which has no end that is known: give the trainer max_steps or"
    for options in ({"max_epochs": -1}, {"max_epochs": -1, "max_time": {"minutes": 1}}):
        with pytest.raises(UsageError, match=message):
            fit(tmp_path, model(SequenceClassifier, LinearDecay), Rates(), **options)


def test_no_steps_are_refused():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=LR)
    with pytest.raises(
        UsageError,
        match=r"^total_steps=0: give the number of steps of the training, a whole number of at least 1, or null",
    ):
        LinearDecay(optimizer, total_steps=0)


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
