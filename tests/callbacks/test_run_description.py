"""The row of a run in TensorBoard's table: what it says, and that nothing of Lightning's own is lost."""

import enum
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import nn

from sparse_rnn import (
    DynamicSparsity,
    GradualPruning,
    LotteryTicket,
    Masks,
    NarangPruning,
    OneShotPruning,
    SparsityMonitor,
)
from sparse_rnn.callbacks import PruningCallback
from sparse_rnn.callbacks.run_description import RunDescription
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, NarangRamp

pytestmark = [
    # The data of these tests has no validation samples, which SequenceClassifier would have a use for.
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
    # Six steps an epoch.
    pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the logging interval"),
]
INPUTS, UNITS = 3, 6


def described(board):
    contents = board.PluginTagToContent("hparams")
    experiment = HParamsPluginData.FromString(contents["_hparams_/experiment"]).experiment
    row = HParamsPluginData.FromString(contents["_hparams_/session_start_info"]).session_start_info.hparams
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in row.items()}
    return experiment, values


def test_tensorboard_gets_the_row_of_the_run(board, tmp_path):
    stopping = EarlyStopping("train/loss", patience=9, check_on_train_epoch_end=True)
    checkpoint = ModelCheckpoint(tmp_path / "checkpoints", monitor="train/loss", every_n_epochs=9)
    pruning = OneShotPruning(0.75, criterion="random")
    callbacks = [SparsityMonitor(), stopping, pruning, checkpoint]
    experiment, row = described(board(callbacks, enable_checkpointing=True))
    wanted = {"cell": "gru", "criterion": "Random", "hidden": UNITS, "seed": 0, "sparsity": 0.75}
    assert row.items() >= wanted.items()
    assert row["init"] == "normal"  # what the model saved is there as well
    assert {info.name for info in experiment.hparam_infos if info.differs} == set(wanted)
    assert [info.name.tag for info in experiment.metric_infos] == ["train/loss"]


def test_a_dense_run_has_the_same_columns(board):
    experiment, row = described(board([SparsityMonitor()]))
    assert (row["criterion"], row["sparsity"]) == ("dense", 0)
    assert [info.name.tag for info in experiment.metric_infos] == ["val/loss"]


class Kind(enum.Enum):
    A = "a"


@dataclass
class AtRate:
    rate: float


SAVED = {
    "numbers of numpy": {"lr": np.float64(0.01), "units": np.int64(3), "rate": np.float32(0.5), "flag": np.bool_(True)},
    "tensors": {"weights": torch.tensor([0.5, 2.0]), "matrix": torch.ones(2, 2), "one": torch.ones(1)},
    "numbers in strings": {"lr": "0.01", "flag": True, "count": 3, "rate": 0.5},
    "no numbers": {"kind": Kind.A, "path": Path("a/b"), "nothing": None, "layer": nn.GRU, "pair": (1, 2.5)},
    "dictionaries": {"net": {"dropout": 0.1, "sizes": [1, 2], "inner": {5: np.int64(2)}}, "empty": {}},
    "lists": {"sizes": [1, 2], "layers": [{"units": 3}, {"units": np.int32(4)}], "mixed": [1, {"a": 2}]},
    "namespaces": {"optimizer": Namespace(lr=0.1, betas=(0.9, 0.99)), "decay": AtRate(0.5)},
    "columns of ours": {
        "seed": 7,
        "sparsity": "high",
        "cell": {"name": "own"},
        "hidden": np.int64(5),
        "criterion": None,
    },
}


class Saving(LightningModule):
    """Saves whatever it is given as its hyperparameters."""

    def __init__(self, saved) -> None:
        super().__init__()
        self.save_hyperparameters(saved)
        self.rnn = nn.GRU(INPUTS, UNITS, batch_first=True)

    def training_step(self, batch, batch_idx):
        return self.rnn(batch[0])[0].square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


class SavingData(LightningDataModule):
    """The same of a data module, and both may save a value under one name."""

    def __init__(self, loader, saved) -> None:
        super().__init__()
        self.save_hyperparameters(saved)
        self.loader = loader

    def train_dataloader(self):
        return self.loader


@pytest.mark.parametrize(
    ("saved", "where"),
    [
        pytest.param(saved, where, id=f"{name}, {where}")
        for name, saved in SAVED.items()
        for where in ("model", "data", "both")
        if (name, where) != ("tensors", "both")  # Lightning takes equal tensors for different ones
    ],
)
def test_the_monitor_adds_columns_and_changes_none(board, data, saved, where):
    def build():
        return Saving({"other": 1} if where == "data" else saved)

    loader = data if where == "model" else SavingData(data, saved)
    rows = [described(board(callbacks, build, data=loader, max_epochs=1))[1] for callbacks in ([], [SparsityMonitor()])]
    ours = {"cell": "gru", "criterion": "dense", "hidden": UNITS, "seed": 0, "sparsity": 0}
    assert rows[1] == ours | rows[0]


def test_neither_a_metric_of_minus_one_nor_columns_of_the_command_line_are_added(board):
    saved = {"_class_path": "a.B", "_instantiator": "lightning.pytorch.cli.instantiate_module", "rate": 0.5}
    found = board([SparsityMonitor()], lambda: Saving(saved), max_epochs=1)
    assert "hp_metric" not in found.Tags()["scalars"]
    _, row = described(found)
    assert row["rate"] == 0.5
    assert not {"_class_path", "_instantiator"} & row.keys()


@pytest.mark.parametrize("describing", [SparsityMonitor, RunDescription])
def test_what_trains_nothing_has_no_row(describing, data, small_classifier, tmp_path):
    logger = TensorBoardLogger(tmp_path)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    Trainer(logger=logger, callbacks=[describing()], **quiet).validate(small_classifier(), data, verbose=False)
    found = EventAccumulator(logger.log_dir).Reload()
    assert {"val/error", "val/loss"} <= set(found.Tags()["scalars"])
    assert "hp_metric" not in found.Tags()["scalars"]
    assert "hparams" not in found.summary_metadata


def test_tensors_and_arrays_of_a_number_are_numbers(train, tmp_path):
    """Lightning's own row fails on tensors, and has text of arrays; a project that has them asks for none."""
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    saved = {"scale": torch.tensor(0.5), "steps": torch.tensor(3), "net": {"on": torch.tensor(True), 1: np.array(0.25)}}
    train(lambda: Saving(saved), [SparsityMonitor()], logger=logger, max_epochs=1)
    _, row = described(EventAccumulator(logger.log_dir).Reload())
    assert row.items() >= {"scale": 0.5, "steps": 3, "net/on": 1, "net/1": 0.25}.items()


class AtAThreshold(PruningCallback):
    def find_masks(self, trainer, pl_module):
        weight = pl_module.rnn.weight_hh_l0
        return Masks({"rnn.weight_hh_l0": weight.abs() > 0.1}, pl_module)


@pytest.mark.parametrize("growth", ["gradient", "random"])
def test_a_way_of_pruning_is_named_before_the_criterion_it_begins_with(board, growth):
    pruning = DynamicSparsity(growth, CosineDecay(every=2), sparsity=0.5, criterion="random")
    _, row = described(board([SparsityMonitor(), pruning]))
    assert (row["criterion"], row["sparsity"]) == (f"DynamicSparsity Random ({growth} growth)", 0.5)


def test_a_way_of_pruning_that_knows_no_criterion_goes_by_its_own_name(board):
    _, row = described(board([SparsityMonitor(), AtAThreshold()]))
    assert (row["criterion"], row["sparsity"]) == ("AtAThreshold", -1)


class Several(LightningModule):
    """Two kinds of layers, of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.GRU(INPUTS, UNITS, batch_first=True), nn.LSTM(UNITS, 4, batch_first=True)
        self.twin = nn.GRU(INPUTS, UNITS, batch_first=True)

    def training_step(self, batch, batch_idx):
        return self.upper(self.lower(batch[0])[0] + self.twin(batch[0])[0])[0].square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def test_a_model_of_several_kinds_of_layers_names_each_once(board):
    pruning = [OneShotPruning(0.5, "random", kernels=["upper*"]), OneShotPruning(0.25, "magnitude", kernels=["lower*"])]
    _, row = described(board([SparsityMonitor(), *pruning], build=Several))
    assert (row["cell"], row["hidden"]) == ("gru + lstm", f"{UNITS} + 4")
    assert (row["criterion"], row["sparsity"]) == ("Random + Magnitude", "0.5 + 0.25")


@pytest.mark.filterwarnings("ignore:.*leaves no update")
@pytest.mark.parametrize(
    ("pruning", "criterion", "sparsity"),
    [
        (lambda: OneShotPruning(0.5, "synflow", rounds=2), "SynFlow", 0.5),
        (lambda: GradualPruning(0.5, Cubic(0, 6, 2), "snip"), "GradualPruning SNIP", 0.5),
        (lambda: LotteryTicket(0.5, rounds=1), "LotteryTicket Magnitude", 0.5),
        (lambda: NarangPruning(0.5, schedule=NarangRamp(1, 5, 11, 2)), "NarangPruning", 0.5),
        (lambda: NarangPruning(theta=0.01, schedule=NarangRamp(1, 5, 11, 2)), "NarangPruning", -1),
    ],
)
def test_each_way_of_pruning_has_its_name_in_the_row(board, pruning, criterion, sparsity):
    _, row = described(board([SparsityMonitor(), pruning()]))
    assert (row["criterion"], row["sparsity"]) == (criterion, sparsity)
