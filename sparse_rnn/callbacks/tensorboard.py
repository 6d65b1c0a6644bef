"""What TensorBoard shows beyond scalars: the table of runs, grouped curves, histograms, maps of connections."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from sparse_rnn.callbacks.base import PruningCallback
from sparse_rnn.callbacks.finding import pruning_callbacks
from sparse_rnn.callbacks.one_shot import OneShotPruning
from sparse_rnn.lightning_compat import (
    callbacks_of,
    datamodule_of,
    log_no_default_metric,
    logged_columns,
    logs_hyperparameters,
)
from sparse_rnn.recurrent.finding import describable_modules
from sparse_rnn.recurrent.layers import RecurrentLayer, named_layers
from sparse_rnn.recurrent.spectrum import Spectrum
from sparse_rnn.sparsity.connections import kept_weights
from sparse_rnn.torch_compat import add_summary

LARGEST_MAP = 2048  # pixels across and down

UNKNOWN = -1  # for a seed that was not set, or a sparsity that training decides
_OF_THE_COMMAND_LINE = ("_class_path", "_instantiator")  # what LightningCLI adds to what a model saves
COLUMNS = ("cell", "criterion", "hidden", "seed", "sparsity")

LAYOUT = {
    "spectrum of the temporal Jacobian": {
        "χ": ["Multiline", [r"spectrum/.+/chi"]],
        "mean singular value": ["Multiline", [r"spectrum/.+/mean"]],
        "largest singular value": ["Multiline", [r"spectrum/.+/largest"]],
        "share of singular values near zero": ["Multiline", [r"spectrum/.+/near_zero"]],
    },
    "sparsity": {
        "by kernel": ["Multiline", [r"sparsity/[^/]+$"]],
        "by gate": ["Multiline", [r"sparsity/.+/.+"]],
    },
    "connections": {
        "input to recurrent": ["Multiline", [r"connections/.+/input_to_recurrent"]],
        "units without incoming or outgoing connections": ["Multiline", [r"connections/.+/no_(incoming|outgoing)"]],
    },
}


def boards(trainer: Trainer) -> Iterator[Any]:
    """Yield the TensorBoard writers among a trainer's loggers."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and needed only where a logger has done so

    for logger in trainer.loggers:
        writer = getattr(logger, "experiment", None)
        if isinstance(writer, SummaryWriter):
            yield writer


def describe_run(trainer: Trainer, model: LightningModule) -> None:
    """Fill the run's row of the HPARAMS tab.

    TensorBoard keeps the first description of a run, so this comes before the one that Lightning writes, which knows
    no metrics, and has all of its columns. The metrics are named only: the tab shows the last value that is logged
    under each name.
    """
    for logger in trainer.loggers:
        log_no_default_metric(logger)
    for board in boards(trainer):
        for summary in _row(hyperparameters(trainer, model), watched_metrics(trainer)):
            add_summary(board, summary)


def describe_fits_only(trainer: Trainer, stage: str) -> None:
    """Keep Lightning from adding a row to the HPARAMS tab for a run that trains nothing.

    Args:
        trainer: The trainer, before it logs hyperparameters.
        stage: What the run is for, as Lightning tells callbacks.
    """
    for logger in () if stage == "fit" else trainer.loggers:
        log_no_default_metric(logger)


def group_curves(trainer: Trainer) -> None:
    """Lay out the CUSTOM SCALARS tab."""
    groups = {"validation": {metric: ["Multiline", [metric]] for metric in watched_metrics(trainer)}}
    for board in boards(trainer):
        board.add_custom_scalars(groups | LAYOUT)


class RunDescription(Callback):
    """Describes a run to TensorBoard that no :class:`sparse_rnn.SparsityMonitor` watches."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave runs without a fit undescribed."""
        describe_fits_only(trainer, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fill the run's row, before Lightning does."""
        tensorboards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.is_global_zero and tensorboards:
            describe_run(trainer, pl_module)


def _row(values: Mapping[str, Any], metrics: Iterable[str]) -> Iterable[Any]:
    """Make the summaries of a row of the HPARAMS tab."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard.summary import hparams

    columns, *others = hparams(dict(values), dict.fromkeys(metrics, -1))
    # TensorBoard shows five columns unasked: those said to differ come first, then it goes by name.
    content = HParamsPluginData.FromString(columns.value[0].metadata.plugin_data.content)
    for info in content.experiment.hparam_infos:
        info.differs = info.name in COLUMNS
    columns.value[0].metadata.plugin_data.content = content.SerializeToString()
    return columns, *others


def watched_metrics(trainer: Trainer) -> list[str]:
    """Name what the fit's callbacks (ModelCheckpoint, EarlyStopping) watch; ``val/loss`` where they watch nothing."""
    watched = [getattr(callback, "monitor", None) for callback in callbacks_of(trainer)]
    return list(dict.fromkeys(metric for metric in watched if isinstance(metric, str))) or ["val/loss"]


def hyperparameters(trainer: Trainer, model: LightningModule) -> dict[str, Any]:
    """Collect the columns of a run: the :data:`COLUMNS`, and what its model and data saved for the logger.

    What was saved is written as Lightning would, and goes before a column of ours of the same name. Every run has the
    :data:`COLUMNS`: TensorBoard takes the columns of its table from one of the runs.
    """
    layers = named_layers(describable_modules(model)).values()
    pruning = pruning_callbacks(trainer)
    own = (
        _joined(layer.cell.name for layer in layers),
        _joined(_criterion(callback) for callback in pruning) or "dense",
        _joined(layer.hidden_size for layer in layers),
        int(os.environ.get("PL_GLOBAL_SEED", UNKNOWN)),
        _joined(_sparsity(callback) for callback in pruning) or 0.0,
    )
    return logged_columns(dict(zip(COLUMNS, own, strict=True))) | logged_columns(_saved(trainer, model))


def _saved(trainer: Trainer, model: LightningModule) -> dict[str, Any]:
    parts = (model, datamodule_of(trainer))
    saved = [part.hparams_initial for part in parts if part is not None and logs_hyperparameters(part)]
    return {name: value for part in saved for name, value in part.items() if name not in _OF_THE_COMMAND_LINE}


def _criterion(callback: PruningCallback) -> str:
    """Name the criterion of a one-shot pruning; of others, which may begin with one, the way of pruning as well."""
    criterion = getattr(callback, "criterion", None)
    names = [type(part).__name__ for part in (callback, criterion) if type(part) not in (OneShotPruning, type(None))]
    growth = getattr(callback, "growth", None)
    return " ".join([*names, f"({growth} growth)"] if growth else names)


def _sparsity(callback: PruningCallback) -> float:
    sparsity = getattr(callback, "sparsity", None)
    return UNKNOWN if sparsity is None else sparsity


def _joined(values: Iterable[Any]) -> Any:
    """Return the value, where all are alike, else all different ones in one string."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else " + ".join(map(str, different))


def add_spectra(board: Any, spectra: Mapping[str, Spectrum], step: int) -> None:
    """Add histograms of the singular values, ``spectrum/<layer>/singular_values``."""
    for layer, found in spectra.items():
        _add_histogram(board, f"spectrum/{layer}/singular_values", found.singular_values, step)


def add_remaining_weights(board: Any, layers: Iterable[RecurrentLayer], masks: Mapping[str, Tensor], step: int) -> None:
    """Add histograms of the weights that are left of each gate, ``weights/<kernel>/<gate>``."""
    for layer in layers:
        weights = layer.all_gates(layer.weights)
        for role, mask in kept_weights(layer, masks).items():
            gates = layer.gates_of(role)
            blocks = zip(gates, weights[role].chunk(len(gates)), mask.chunk(len(gates)), strict=True)
            for gate, weight, kept in blocks:
                _add_histogram(board, f"weights/{layer.kernels[role]}/{gate}", weight[kept].float(), step)


def _add_histogram(board: Any, name: str, values: Tensor, step: int) -> None:
    """Add a histogram of the values that are finite; TensorBoard fails on others, and where there are none."""
    finite = values[values.isfinite()]
    if len(finite):
        board.add_histogram(name, finite, step)


def add_maps(trainer: Trainer, layers: Mapping[str, RecurrentLayer], masks: Mapping[str, Tensor], step: int) -> None:
    """Add images of the connections that are left, ``connections/<layer>/map``.

    TensorBoard gets them, and every logger that has a ``log_image`` as Lightning's ``WandbLogger`` has.
    """
    others = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
    for name, layer in layers.items():
        image, tag = connection_image(kept_weights(layer, masks).values()).cpu(), f"connections/{name}/map"
        for board in boards(trainer):
            board.add_image(tag, image, step, dataformats="HW")
        for logger in others:
            logger.log_image(tag, [image.numpy()], step=step)


def connection_image(kept: Iterable[Tensor]) -> Tensor:
    """Draw the kernels of a layer, transposed, one below the other: dark where connected, [inputs, outputs].

    A pixel stands for one weight, or, in large layers, for a block of them, the darker the more of it are left.

    Args:
        kept: Masks; only those with as many rows as the first one are drawn.

    Returns:
        Grey values in [0, 1], at most :data:`LARGEST_MAP` across and down.
    """
    first, *others = (mask.t().float() for mask in kept)
    density = torch.cat([first, *(other for other in others if other.shape[1] == first.shape[1])])
    block = [-(-size // LARGEST_MAP) for size in density.shape]
    density = nn.functional.avg_pool2d(density[None], block, ceil_mode=True, count_include_pad=False)[0]
    return 1 - density / density.max().clamp(min=torch.finfo(density.dtype).tiny)
