"""Learning rates over a training: against the closed form, step by step, for both models, and on resume."""

from math import cos, pi

import pytest
import torch
from learning_rates import LR, Rates, StoppedError, fit, model
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.modules import CosineAnnealing, LanguageModel, LinearDecay, SequenceClassifier

FORMS = {LinearDecay: lambda share: 1 - share, CosineAnnealing: lambda share: (1 + cos(pi * share)) / 2}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:Checkpoint directory .* exists and is not empty"
)

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
    assert rates == [LR * (1 - step / 18) for step in range(6, 18)]


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
