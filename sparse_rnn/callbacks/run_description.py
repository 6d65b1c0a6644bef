"""What a run is, in TensorBoard's table of runs: its layers, what prunes them, and what its model and data saved."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from sparse_rnn.callbacks.base import PruningCallback
from sparse_rnn.callbacks.finding import pruning_callbacks
from sparse_rnn.callbacks.one_shot import OneShotPruning
from sparse_rnn.callbacks.tensorboard import boards, watched_metrics
from sparse_rnn.lightning_compat import datamodule_of, log_no_default_metric, logged_columns, logs_hyperparameters
from sparse_rnn.recurrent.finding import describable_modules
from sparse_rnn.recurrent.layers import named_layers
from sparse_rnn.torch_compat import add_summary

UNKNOWN = -1  # for a seed that was not set, or a sparsity that training decides
_OF_THE_COMMAND_LINE = ("_class_path", "_instantiator")  # what LightningCLI adds to what a model saves
COLUMNS = ("cell", "criterion", "hidden", "seed", "sparsity")


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
