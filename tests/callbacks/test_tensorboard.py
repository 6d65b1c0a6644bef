"""What TensorBoard gets: the row of a run, groups of curves, histograms and maps."""

import enum
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
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
from sparse_rnn.callbacks.tensorboard import (
    RunDescription,
    add_remaining_weights,
    boards,
    connection_image,
    watched_metrics,
)
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, NarangRamp
from sparse_rnn.recurrent import ResetBeforeGRU, find_recurrent

pytestmark = [
    # The data of these tests has no validation samples, which SequenceClassifier would have a use for.
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
    # Six steps an epoch.
    pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the logging interval"),
]
INPUTS, UNITS = 3, 6


def classifier() -> SequenceClassifier:
    return SequenceClassifier(INPUTS, 4, hidden_size=UNITS)


@pytest.fixture
def board(train, tmp_path):
    """Fits with TensorBoard and gives the events."""

    def board(callbacks, build=classifier, **options):
        logger = TensorBoardLogger(tmp_path, name="logs")
        train(build, callbacks, logger=logger, **options)
        return EventAccumulator(logger.log_dir).Reload()

    return board


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
def test_what_trains_nothing_has_no_row(describing, data, tmp_path):
    logger = TensorBoardLogger(tmp_path)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    Trainer(logger=logger, callbacks=[describing()], **quiet).validate(classifier(), data, verbose=False)
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


def test_tensorboard_gets_curves_in_groups_histograms_and_maps(board):
    events = board([SparsityMonitor(histograms=True, connection_map=True), OneShotPruning(0.75, criterion="random")])
    assert "spectrum/rnn.l0/chi" in events.Tags()["scalars"]
    assert "custom_scalars__config__" in events.Tags()["tensors"]
    # One histogram for the singular values and one for every gate of the two kernels.
    assert len(events.Tags()["histograms"]) == 1 + 2 * 3
    assert events.Histograms("spectrum/rnn.l0/singular_values")[-1].histogram_value.num == 16 * UNITS
    counts = [events.Histograms(tag)[-1].histogram_value.num for tag in events.Tags()["histograms"] if "weights" in tag]
    assert sum(counts) == round(0.25 * 3 * UNITS * (INPUTS + UNITS))
    image = events.Images("connections/rnn.l0/map")[-1]
    assert (image.height, image.width) == (INPUTS + UNITS, 3 * UNITS)


class WithImages(CSVLogger):
    """Takes images under the name that Lightning's WandbLogger takes them under."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.images = {}

    def log_image(self, key, images, step=None):
        self.images[key, step] = [image.shape for image in images]


def test_other_loggers_get_the_map_too_where_they_take_images(train, tmp_path):
    logger = WithImages(tmp_path)
    train(classifier, [SparsityMonitor(connection_map=True)], logger=logger, max_epochs=1)
    shapes = {shape for (key, _), [shape] in logger.images.items() if key == "connections/rnn.l0/map"}
    assert shapes == {(INPUTS + UNITS, 3 * UNITS)}


def test_images_and_histograms_are_options(board):
    events = board([SparsityMonitor()])
    assert not events.Tags()["histograms"]
    assert not events.Tags()["images"]


def test_a_gate_without_weights_has_no_histogram(board):
    pruning = OneShotPruning(0.5, criterion="random", allocation={"*": {"r": 0.0, "z": 0.5, "n": 1.0}})
    events = board([SparsityMonitor(histograms=True), pruning])
    assert "weights/rnn.weight_hh_l0/z" in events.Tags()["histograms"]
    assert "weights/rnn.weight_hh_l0/r" not in events.Tags()["histograms"]


def test_gates_that_read_different_things_have_histograms_of_their_own():
    gru, drawn = ResetBeforeGRU(INPUTS, UNITS), {}
    masks = {name: torch.rand(p.shape) < 0.5 for name, p in gru.named_parameters() if name.startswith("weight")}

    class Board:
        def add_histogram(self, tag, values, step):
            drawn[tag] = values

    (layer,) = find_recurrent(gru)[0].layers[0]
    add_remaining_weights(Board(), [layer], masks, 0)
    assert list(drawn) == [f"weights/weight_{role}_l0/{gate}" for role in ("ih", "hh") for gate in "rzn"]
    n = slice(2 * UNITS, None)
    assert torch.equal(drawn["weights/weight_hh_l0/n"], gru.weight_hh_l0[n][masks["weight_hh_l0"][n]])


def test_the_map_is_dark_where_there_are_connections():
    of_input, of_state = torch.rand(6, 2) < 0.5, torch.rand(6, 3) < 0.5
    image = connection_image([of_input, of_state, torch.ones(4, 3, dtype=torch.bool)])  # the last is a projection
    assert torch.equal(image, 1 - torch.cat([of_input.T, of_state.T]).float())
    assert torch.equal(connection_image([torch.zeros(2, 2, dtype=torch.bool)]), torch.ones(2, 2))


def test_a_large_map_is_shrunk_to_shares_of_connections(monkeypatch):
    monkeypatch.setattr("sparse_rnn.callbacks.tensorboard.LARGEST_MAP", 4)
    mask = torch.zeros(7, 3, dtype=torch.bool)
    mask[0, 0] = mask[2, 1] = mask[3, 1] = mask[6, 2] = True
    shares = torch.tensor([[0.5, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    assert torch.equal(connection_image([mask]), 1 - shares)


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


class Watching:
    def __init__(self, *callbacks) -> None:
        self.callbacks = callbacks


class Monitoring:
    def __init__(self, monitor) -> None:
        self.monitor = monitor


@pytest.mark.parametrize(
    ("monitors", "expected"),
    [
        ([], ["val/loss"]),
        ([None, torch.nn.ReLU()], ["val/loss"]),
        (["val/accuracy"], ["val/accuracy"]),
        (["b", "a", None, "b"], ["b", "a"]),
    ],
)
def test_the_metrics_of_a_row_are_those_that_are_watched_each_once(monitors, expected):
    assert watched_metrics(Watching(*map(Monitoring, monitors), object())) == expected


def test_only_writers_of_tensorboard_count(train, tmp_path):
    loggers = [CSVLogger(tmp_path, "csv"), TensorBoardLogger(tmp_path, "board")]
    trainer = train(classifier, [], logger=loggers, max_epochs=1)
    assert list(boards(trainer)) == [loggers[1].experiment]


def brute_image(mask: torch.Tensor, largest: int) -> torch.Tensor:
    """Block by block, those at the edges smaller."""
    rows, columns = mask.shape
    height, width = -(-rows // largest), -(-columns // largest)
    shares = [
        [mask[i : i + height, j : j + width].double().mean().item() for j in range(0, columns, width)]
        for i in range(0, rows, height)
    ]
    density = torch.tensor(shares).float()
    return 1 - density / density.max() if density.max() > 0 else torch.ones_like(density)


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.integers(1, 7), st.floats(0, 1), st.integers(0, 99))
def test_a_pixel_is_the_share_of_its_block(outputs, inputs, states, largest, share, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.rand(outputs, size, generator=generator) < share for size in (inputs, states)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparse_rnn.callbacks.tensorboard.LARGEST_MAP", largest)
        image = connection_image(masks)
    assert max(image.shape) <= largest
    torch.testing.assert_close(image, brute_image(torch.cat([mask.T for mask in masks]), largest))
