"""Reads trained models back from Lightning's checkpoints: weights, masks, and the configuration of their run.

A run is known by its checkpoint and by the config.yaml that ``python -m sparse_rnn fit`` saves beside it::

    from sparse_rnn.checkpoints import data_of, read

    checkpoint = read("lightning_logs/version_0/checkpoints/last.ckpt")
    checkpoint.model, checkpoint.masks.sparsity, data_of(checkpoint)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule

from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.checkpoint_models import CONFIG, build, masks_in, model_in, packed_masks
from sparse_rnn.config_files import read_config, section
from sparse_rnn.errors import UsageError
from sparse_rnn.paths import is_address
from sparse_rnn.saved_models import imported
from sparse_rnn.sparsity.masks import Masks

__all__ = ["CONFIG", "Checkpoint", "data_of", "local", "read"]


@dataclass(frozen=True)
class Checkpoint:
    """A model as a checkpoint holds it.

    Attributes:
        path: The checkpoint.
        folder: The folder of the run, which holds its configuration and event files.
        epoch: The epoch that it was saved in, from 0.
        step: Optimizer steps taken.
        model: The model, in evaluation mode, on the CPU.
        masks: The masks of its recurrent kernels; all True for a dense model.
        pruned: Whether a callback pruned it.
        config: The configuration of the run; empty where none was saved.
    """

    path: Path
    folder: Path
    epoch: int
    step: int
    model: LightningModule
    masks: Masks
    pruned: bool
    config: Mapping[str, Any]

    @property
    def config_text(self) -> str:
        """The configuration as it was saved; empty where it was not."""
        path = self.folder / CONFIG
        return path.read_text(encoding="utf-8") if path.exists() else ""


def read(path: str | os.PathLike[str], module: str | None = None) -> Checkpoint:
    """Read a model, its masks and the configuration of its run.

    Args:
        path: A checkpoint that ``python -m sparse_rnn fit`` has saved, or one of a Lightning project whose model saved
            its hyperparameters on Lightning's command line.
        module: Import path of the model's class, for a checkpoint that does not say it; the class is called with the
            hyperparameters that the model has saved, as ``load_from_checkpoint`` does.

    Raises:
        MissingFileError: If there is no such file.
        UsageError: If it is no checkpoint, lies on another machine, its model cannot be built, or model and masks do
            not fit.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> from sparse_rnn.modules import SequenceClassifier
        >>> model = SequenceClassifier(8, 10, hidden_size=4)
        >>> hparams = {"_class_path": "sparse_rnn.modules.SequenceClassifier", **model.hparams}
        >>> saved = {"state_dict": model.state_dict(), "hyper_parameters": hparams, "global_step": 3}
        >>> with TemporaryDirectory() as folder:
        ...     torch.save(saved, Path(folder, "last.ckpt"))
        ...     checkpoint = read(Path(folder, "last.ckpt"))
        >>> checkpoint.step, checkpoint.pruned, checkpoint.model.hparams.hidden_size
        (3, False, 4)
    """
    path = local(path)
    # Lightning puts checkpoints/ into the folder where the command line saves config.yaml.
    beside = path.absolute().parent
    folder = beside.parent if beside.name == "checkpoints" else path.parent
    config = read_config(str(folder / CONFIG)) if (folder / CONFIG).exists() else {}
    imported(module or section(config, "model")[0] or "")
    checkpoint = load_checkpoint(path)
    model = model_in(path, config, checkpoint, module)
    return Checkpoint(
        path=path,
        folder=folder,
        epoch=checkpoint.get("epoch", 0),
        step=checkpoint.get("global_step", 0),
        model=model,
        masks=masks_in(path, checkpoint, model),
        pruned=bool(packed_masks(checkpoint)),
        config=config,
    )


def local(path: str | os.PathLike[str]) -> Path:
    """Refuse an address, as the configuration of a run lies beside its checkpoint.

    A ``Path`` of an address has lost one of its slashes, so that it is to be given as it was typed.

    Raises:
        UsageError: If the path leads to another machine.

    Example:
        >>> local("https://example.org/last.ckpt")
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: https://example.org/last.ckpt is an address: download the checkpoint and the ...
    """
    if is_address(path):
        raise UsageError(
            f"{path} is an address: download the checkpoint and the {CONFIG} of its run, and give the path of the copy."
        )
    return Path(path)


def data_of(checkpoint: Checkpoint, override: str | None = None) -> LightningDataModule:
    """Build the data of a run.

    Args:
        checkpoint: The model that was trained on them.
        override: A config whose ``data`` section is taken instead.

    Raises:
        MissingFileError: If there is no such config.
        UsageError: If neither names the data.

    Example:
        >>> model = LightningModule()
        >>> config = {"data": {"class_path": "sparse_rnn.data.SequentialDigits"}}
        >>> checkpoint = Checkpoint(Path("last.ckpt"), Path(), 0, 0, model, Masks({}, model), False, config)
        >>> type(data_of(checkpoint)).__name__, data_of(checkpoint, "lstm_pydoc.yaml").batch_size
        ('SequentialDigits', 16)
    """
    config = checkpoint.config if override is None else read_config(override)
    path, _ = section(config, "data")
    if path is None:
        lacking = f"{override or checkpoint.folder / CONFIG} names no data"
        if override is None and not checkpoint.config:
            lacking = f"No {CONFIG} beside {checkpoint.path} names its data"
        raise UsageError(f"{lacking}: give a config with a data section by --data.")
    described = config["data"] if isinstance(config["data"], Mapping) else {"class_path": path}
    data: LightningDataModule = build(LightningDataModule, "data", described)
    return data
