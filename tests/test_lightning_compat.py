"""A test a private name of Lightning: the one that an upgrade has taken away fails by its name."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from sparse_rnn import lightning_compat as compat


class Model(LightningModule):
    def __init__(self, units: int = 1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, units)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_fit_can_be_validated_before_its_first_step(tmp_path):
    seen = []

    class Validated(Model):
        def validation_step(self, batch, batch_idx):
            self.log("val/loss", self.layer(batch).mean())

        def on_train_start(self):
            compat.validate_now(self.trainer)

        def on_validation_end(self):
            if not self.trainer.sanity_checking:
                seen.append((self.trainer.global_step, float(self.trainer.callback_metrics["val/loss"])))

    model, batches = Validated(), DataLoader(torch.ones(4, 1), 2)
    first = model.layer(torch.ones(1, 1)).item()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=2, default_root_dir=tmp_path, enable_model_summary=False, **quiet)
    trainer.fit(model, batches, batches)
    assert [step for step, _ in seen] == [0, 2, 4]
    assert seen[0][1] == pytest.approx(first)
    assert seen[1][1] < first


@pytest.fixture
def fit(tmp_path):
    """Runs a function at the end of every batch of a fit on five batches of two steps, and gives what it gave."""

    def fit(observe, **options):
        seen = []

        class Observer(Callback):
            def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
                seen.append(observe(trainer))

        trainer = Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[Observer()], default_root_dir=tmp_path, **options,
        )  # fmt: skip
        trainer.fit(Model(), DataLoader(torch.ones(5, 1), 1))
        return seen

    return fit


pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def test_should_accumulate_and_batches_that_stepped(fit):
    seen = fit(lambda trainer: (compat.only_accumulates(trainer), compat.logged_step(trainer)),
               accumulate_grad_batches=2)  # fmt: skip
    # The last batch of an epoch steps, though it is not the second.
    assert [accumulates for accumulates, _ in seen] == [True, False, True, False, False]
    assert [step for _, step in seen] == sorted(step for _, step in seen)
    assert seen[-1][1] in (2, 3)


def test_restarting():
    trainer = Trainer(accelerator="cpu", max_steps=3, logger=False, enable_checkpointing=False)
    for in_the_middle in (True, False):
        compat.enter_epoch(trainer, in_the_middle)
        assert trainer.fit_loop._restarting is trainer.fit_loop.epoch_loop.restarting is in_the_middle


def test_log_hyperparams():
    class Silent(Model):
        def __init__(self):
            LightningModule.__init__(self)
            self.save_hyperparameters(logger=False)

    assert compat.logs_hyperparameters(Model())
    assert not compat.logs_hyperparameters(Silent())
    assert not compat.logs_hyperparameters(LightningDataModule())


def test_flatten_dict_and_sanitize_params():
    saved = {
        "lr": np.float64(0.5),
        "net": {"units": np.int64(2), "sizes": [1, 2]},
        "flag": np.bool_(True),
        "none": None,
    }
    columns = compat.logged_columns(saved)
    assert columns == {"lr": 0.5, "net/units": 2, "net/sizes": "[1, 2]", "flag": True, "none": "None"}
    assert [type(value) for value in columns.values()] == [float, int, str, bool, str]


def test_generate_state_key():
    key = compat.state_key(Callback(), kernels=["*hh*"])
    assert key.startswith("Callback")
    assert key != compat.state_key(Callback(), kernels=None)


def test_a_class_joins_the_other_name_once_it_is_imported(monkeypatch):
    class Other:
        pass

    class Ours(Callback):
        pass

    monkeypatch.delitem(sys.modules, "pytorch_lightning", raising=False)
    compat.join_other_name(Ours)
    assert not issubclass(Ours, Other)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", SimpleNamespace(Callback=Other))
    for _ in range(2):
        compat.join_other_name(Ours)
    assert Ours.__bases__ == (Callback, Other)


@pytest.mark.parametrize(("strategy", "by_fit"), [("auto", False), ("ddp_spawn", True), ("ddp_notebook", True)])
def test_launchers_that_end_with_fit(strategy, by_fit):
    trainer = Trainer(accelerator="cpu", devices=1 if strategy == "auto" else 2, strategy=strategy, logger=False)
    trainer.strategy._configure_launcher()
    assert compat.launched_by_fit(trainer) == by_fit


def test_a_logger_can_be_kept_from_a_metric_of_its_own(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    assert logger._default_hp_metric is True
    compat.log_no_default_metric(logger)
    compat.log_no_default_metric(object())
    logger.log_hyperparams({"rate": 0.5})
    logger.finalize("success")
    assert "hp_metric" not in EventAccumulator(logger.log_dir).Reload().Tags()["scalars"]
