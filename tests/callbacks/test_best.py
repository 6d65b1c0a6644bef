"""A project that deploys its best checkpoint is told where that one is denser than the model."""

import warnings

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from sparse_rnn import GradualPruning, IterativePruning, LotteryTicket, NarangPruning, OneShotPruning, SparseCheckpoint
from sparse_rnn.pruning.schedules import Cubic, NarangRamp


class Model(LightningModule):
    """Logs what is monitored: ``worse`` and ``better`` with every step."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 8, batch_first=True)

    def training_step(self, batch, index):
        self.log("train/worse", float(self.global_step), on_epoch=True)
        return self.rnn(batch[0])[0].square().mean()

    def validation_step(self, batch, index):
        self.log("worse", float(self.global_step))
        self.log("better", -float(self.global_step))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


class Keeper(Callback):
    """A project's own callback that keeps a best model, and is none of Lightning's."""

    monitor, best_model_path, best_model_score = "worse", "", None

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking and not self.best_model_path:
            self.best_model_path = "somewhere"


@pytest.fixture
def told(tmp_path, data):
    """Fits twelve steps and gives the sentences about best checkpoints that were denser."""

    def told(*callbacks, ckpt_path=None, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Trainer(
                accelerator="cpu", callbacks=list(callbacks), logger=False, enable_progress_bar=False,
                enable_model_summary=False, default_root_dir=tmp_path, **{"max_epochs": 4} | options,
            ).fit(Model(), data, data, ckpt_path=ckpt_path)  # fmt: skip
        return [str(one.message) for one in caught if "best_model_path" in str(one.message)]

    return told


def gradual():
    return GradualPruning(0.9, Cubic(begin=2, end=16, frequency=2))


LATE = {
    "gradual": gradual,
    "iterative": lambda: IterativePruning(0.9, densities=(0.5,), every=8),
    "Narang": lambda: NarangPruning(0.9, schedule=NarangRamp(start=7, ramp=9, end=20, frequency=2)),
    "lottery": lambda: LotteryTicket(0.9, rounds=2),
}


@pytest.mark.parametrize("way", LATE)
def test_a_best_model_that_is_denser_than_the_last_is_told_once(told, tmp_path, way):
    [sentence] = told(LATE[way](), ModelCheckpoint(tmp_path, monitor="worse"))
    assert "best checkpoint of ModelCheckpoint(monitor='worse')" in sentence
    assert "step 6, when the sparsity was 0" in sentence
    assert "in the end it is 0.9" in sentence


@pytest.mark.parametrize(
    "build",
    [
        lambda folder: ModelCheckpoint(folder, monitor="train/worse", save_top_k=2),
        lambda folder: ModelCheckpoint(folder, monitor="worse", save_weights_only=True),
        lambda folder: ModelCheckpoint(folder, monitor="train/worse_step", every_n_train_steps=3),
        lambda folder: ModelCheckpoint(folder, "best", monitor="better", mode="max", enable_version_counter=False),
        lambda folder: Keeper(),
    ],
)
def test_whatever_keeps_a_best_model_is_looked_at(told, tmp_path, build):
    assert len(told(gradual(), build(tmp_path))) == 1
    assert len(told(build(tmp_path / "first"), gradual())) == 1


@pytest.mark.parametrize(
    "build",
    [
        lambda folder: ModelCheckpoint(folder, monitor="better"),
        lambda folder: ModelCheckpoint(folder, "one_path", monitor="better", enable_version_counter=False),
        lambda folder: ModelCheckpoint(folder),
        lambda folder: SparseCheckpoint(folder, monitor="worse"),
    ],
)
def test_a_best_model_that_is_as_sparse_as_the_last_is_not_told(told, tmp_path, build):
    assert not told(gradual(), build(tmp_path))


def test_one_shot_pruning_has_nothing_to_tell(told, tmp_path):
    assert not told(OneShotPruning(0.9, "magnitude"), ModelCheckpoint(tmp_path, monitor="worse"))


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_best_model_of_before_a_resume_is_told(told, tmp_path):
    def saving():
        return ModelCheckpoint(tmp_path, monitor="worse"), ModelCheckpoint(tmp_path / "last", "last")

    first, last = saving()
    assert len(told(gradual(), first, last, max_epochs=2)) == 1
    again, later = saving()
    [sentence] = told(gradual(), again, later, ckpt_path=last.best_model_path)
    assert "step 6, when the sparsity was 0" in sentence
