"""A Mac's MPS, where nothing here can train, simulated: Lightning takes it wherever it is not told otherwise."""

from types import SimpleNamespace

import pytest
import torch
from lightning.fabric.accelerators import MPSAccelerator as MPSOfFabric
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import MPSAccelerator

from sparse_rnn import OneShotPruning
from sparse_rnn.devices import refuse_mps
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel

SAID = "^Apple's MPS has no float64, which metrics, sampled softmax and pruning need: take accelerator='cpu', on the"


@pytest.fixture
def on_a_mac(monkeypatch):
    """Makes this machine one that has MPS."""
    for kind in (MPSAccelerator, MPSOfFabric):
        monkeypatch.setattr(kind, "is_available", staticmethod(lambda: True))
    monkeypatch.setattr(MPSAccelerator, "get_parallel_devices", staticmethod(lambda devices: [torch.device("mps", 0)]))
    monkeypatch.setattr(MPSAccelerator, "parse_devices", staticmethod(lambda devices: [0]))


@pytest.fixture
def trainer(on_a_mac):
    return Trainer(logger=False, enable_checkpointing=False)


def test_lightning_takes_mps_on_a_mac_and_it_is_refused(trainer):
    assert trainer.strategy.root_device.type == "mps"
    with pytest.raises(UsageError, match=SAID):
        refuse_mps(trainer)


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_models_and_callbacks_refuse_it_before_anything_is_moved(trainer, stage):
    model = LanguageModel(9, embedding_size=2, hidden_size=3)
    model._trainer = SimpleNamespace(strategy=trainer.strategy, datamodule=None)
    with pytest.raises(UsageError, match=SAID):
        model.setup(stage)
    with pytest.raises(UsageError, match=SAID):
        OneShotPruning(0.5).setup(trainer, model, stage)


def test_the_command_line_takes_the_cpu_and_says_so(on_a_mac, run, caplog):
    run("fit", "--config", "gru_digits.yaml", "--trainer.fast_dev_run", "1", "--model.hidden_size", "6",
        "--pruning.num_samples", "8")  # fmt: skip
    assert "Training on the CPU: Apple's MPS has no float64" in caplog.text


def test_the_command_line_refuses_it_where_it_is_asked_for(on_a_mac, refused):
    line = refused("fit", "--config", "gru_digits.yaml", "--trainer.accelerator", "mps", "--model.hidden_size", "6")
    assert line.endswith("on the command line --trainer.accelerator cpu.")
