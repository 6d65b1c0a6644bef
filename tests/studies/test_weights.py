"""Weights that go from one fit to another."""

import pytest
import torch
from lightning.pytorch import Trainer

from sparse_rnn import OneShotPruning
from sparse_rnn.compare.recorder import MetricsRecorder
from sparse_rnn.data import SequentialDigits
from sparse_rnn.errors import MissingFileError
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.studies.weights import KeepWeights, StartFrom

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def fit(tmp_path, seed, *callbacks, epochs=1, resumed=None):
    torch.manual_seed(seed)
    model = SequenceClassifier(8, 10, hidden_size=6)
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, limit_train_batches=3, default_root_dir=tmp_path, logger=False,
        callbacks=list(callbacks), enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model, SequentialDigits(), ckpt_path=resumed)
    return model, trainer


def error_of(weights):
    model = SequenceClassifier(8, 10, hidden_size=6)
    model.load_state_dict(weights)
    [metrics] = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).validate(
        model, SequentialDigits(), verbose=False
    )
    return metrics["val/error"]


def test_a_fit_starts_from_the_weights_pruned_and_validates_them_first(tmp_path):
    trained, _ = fit(tmp_path, 0, KeepWeights(str(tmp_path / "weights.pt")))
    pruning, recorder = OneShotPruning(0.5, "magnitude"), MetricsRecorder(str(tmp_path / "metrics.json"))
    retrained, trainer = fit(tmp_path, 1, recorder, StartFrom(str(tmp_path / "weights.pt")), pruning, epochs=2)

    weights = {name: value.clone() for name, value in trained.state_dict().items()}
    for name, mask in pruning.masks.items():
        smallest = weights[name][~mask].abs().max()
        assert smallest <= max(weights[other][kept].abs().min() for other, kept in pruning.masks.items())
        weights[name] *= mask
    history = recorder._history
    assert [(at["epoch"], at["step"]) for at in history] == [(0.0, 0), (1.0, 3), (2.0, 6)]
    assert history[0]["val/error"] == pytest.approx(error_of(weights))
    assert history[2]["val/error"] == pytest.approx(error_of(retrained.state_dict()))
    assert trainer.global_step == 6


def test_a_fit_that_goes_on_does_not_start_anew(tmp_path):
    def callbacks():
        recorder = MetricsRecorder(str(tmp_path / "metrics.json"))
        return recorder, StartFrom(str(tmp_path / "weights.pt")), OneShotPruning(0.5, "magnitude")

    fit(tmp_path, 0, KeepWeights(str(tmp_path / "weights.pt")))
    recorder, *others = callbacks()
    unbroken, _ = fit(tmp_path, 1, recorder, *others, epochs=2)
    _, trainer = fit(tmp_path, 1, *callbacks())
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    gone_on, *others = callbacks()
    resumed, _ = fit(tmp_path, 1, gone_on, *others, epochs=2, resumed=tmp_path / "first.ckpt")
    assert gone_on._history == recorder._history
    for name, value in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"There are no weights .*none\.pt to start from"):
        fit(tmp_path, 0, StartFrom(str(tmp_path / "none.pt")))
