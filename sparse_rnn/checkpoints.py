"""Reads trained models back from Lightning's checkpoints: weights, masks, and the configuration of their run.

A run is known by its checkpoint and by the config.yaml that ``python -m sparse_rnn fit`` saves beside it::

    from sparse_rnn.checkpoints import data_of, read

    checkpoint = read("lightning_logs/version_0/checkpoints/last.ckpt")
    checkpoint.model, checkpoint.masks.sparsity, data_of(checkpoint)
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from torch import Tensor

from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.config_files import read_config
from sparse_rnn.errors import UsageError, one_line, unwrapped
from sparse_rnn.isolation import rng_kept
from sparse_rnn.paths import is_address
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.saved_models import called, class_named, imported
from sparse_rnn.sparsity.masks import Masks

CONFIG = "config.yaml"


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
        return path.read_text() if path.exists() else ""


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
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    config = read_config(str(folder / CONFIG)) if (folder / CONFIG).exists() else {}
    described = config.get("model")
    imported(module or (described.get("class_path", "") if isinstance(described, Mapping) else ""))
    checkpoint = load_checkpoint(path)
    model = _model(path, config, checkpoint, module)
    saved = _saved_masks(checkpoint)
    return Checkpoint(
        path=path,
        folder=folder,
        epoch=checkpoint.get("epoch", 0),
        step=checkpoint.get("global_step", 0),
        model=model,
        masks=_masks(path, saved, model),
        pruned=bool(saved),
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


def build(kind: type, key: str, config: Mapping[str, Any]) -> Any:
    """Build the model or the data that a configuration describes, as Lightning's command line does.

    Args:
        kind: The class that it must be.
        key: Its key, ``model`` or ``data``.
        config: Its ``class_path`` and ``init_args``.

    Raises:
        UsageError: If there is no such class, or it does not take these arguments.

    Example:
        >>> config = {"class_path": "sparse_rnn.data.SequentialDigits", "init_args": {"batch_size": 7}}
        >>> build(LightningDataModule, "data", config).batch_size
        7
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, key, fail_untyped=False, required=True)
    try:
        with unwrapped():
            return parser.instantiate_classes(parser.parse_object({key: dict(config)}))[key]
    except ArgumentError as error:
        raise UsageError(f"The {key} of the run cannot be built: {one_line(str(error))}") from error


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
    section = (checkpoint.config if override is None else read_config(override)).get("data")
    if not isinstance(section, Mapping):
        lacking = f"{override or checkpoint.folder / CONFIG} names no data"
        if override is None and not checkpoint.config:
            lacking = f"No {CONFIG} beside {checkpoint.path} names its data"
        raise UsageError(f"{lacking}: give a config with a data section by --data.")
    data: LightningDataModule = build(LightningDataModule, "data", section)
    return data


def _model(path: Path, config: Mapping[str, Any], checkpoint: Mapping[str, Any], module: str | None) -> LightningModule:
    """Build the model with its weights.

    The class comes from the configuration; its arguments too, but as the checkpoint holds them where it does: a model
    may learn some of them when it is set up, such as the size of a vocabulary.
    """
    saved = dict(checkpoint.get("hyper_parameters", {}))
    class_path = saved.pop("_class_path", None)
    by_command_line = saved.pop("_instantiator", None) is not None
    if module and not by_command_line:
        model = called(class_named(module), checkpoint, path)
        fill(path, model, checkpoint)
        return model.eval()
    described: Mapping[str, Any] = {"class_path": module} if module else config.get("model", {})
    class_path = described.get("class_path", class_path)
    if class_path is None:
        raise UsageError(
            f"{path} does not say of which class its model is, nor does a {CONFIG} beside it: name the "
            "class, as in --module package.Class of analyze, or save it as hyper_parameters['_class_path']."
        )
    arguments = described.get("init_args", saved)
    arguments = {name: saved.get(name, value) for name, value in arguments.items()}
    model = build(LightningModule, "model", {"class_path": class_path, "init_args": arguments})
    fill(path, model, checkpoint)
    return model.eval()


def fill(path: str | os.PathLike[str], model: LightningModule, checkpoint: Mapping[str, Any]) -> None:
    """Give a model the weights of a checkpoint, as Lightning does.

    The weights stay in their file until they are used.

    Args:
        path: The checkpoint, for the error's sentence.
        model: The model, which gets other parameters.
        checkpoint: What it holds.

    Raises:
        UsageError: If it is of another model.

    Example:
        >>> model = LightningModule()
        >>> fill("last.ckpt", model, {"state_dict": {"weight": 3}})
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: last.ckpt and the LightningModule that its run describes differ: ...
    """
    try:
        model.configure_model()
        model.on_load_checkpoint(dict(checkpoint))
        _check_kinds(model, checkpoint["state_dict"])
        model.load_state_dict(checkpoint["state_dict"], strict=model.strict_loading, assign=True)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"{path} and the {type(model).__name__} that its run describes differ: {one_line(str(error))}"
        ) from error


def _check_kinds(model: LightningModule, saved: Mapping[str, Any]) -> None:
    """Refuse weights of another kind than the model's, which PyTorch takes by dropping a part of them or not at all."""

    def kind(weight: Tensor) -> tuple[Any, ...]:
        return weight.is_floating_point(), weight.is_complex(), weight.layout

    for name, own in model.state_dict().items():
        weight = saved.get(name)
        if (
            isinstance(own, Tensor)
            and isinstance(weight, Tensor)
            and (kind(own) != kind(weight) or weight.is_meta > own.is_meta)
        ):
            found = f"{weight.dtype}, {weight.layout}, on {weight.device}"
            raise UsageError(f"{name} is {found}, where the {type(model).__name__} has {own.dtype}, {own.layout}.")


def check_fits(
    path: str | os.PathLike[str],
    checkpoint: Mapping[str, Any],
    model: LightningModule,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Refuse a checkpoint of another model or of other callbacks, before anything of it is taken.

    Weights, masks and the states of callbacks are tried on copies.

    Args:
        path: The checkpoint, for the error's sentence.
        checkpoint: What it holds.
        model: The model that is to take its weights.
        callbacks: Those that are to take their states.

    Raises:
        UsageError: If something does not fit.

    Example:
        >>> from sparse_rnn.modules import SequenceClassifier
        >>> model = SequenceClassifier(8, 10, hidden_size=4)
        >>> check_fits("last.ckpt", {"state_dict": model.state_dict()}, model)
        >>> check_fits("last.ckpt", {"state_dict": {}}, model)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: last.ckpt and the SequenceClassifier that its run describes differ: ...
    """
    states = checkpoint.get("callbacks", {})
    for callback in callbacks:
        if callback.state_key in states:
            _try_state(path, callback, states[callback.state_key])
    twin = _twin(model, checkpoint.get("hyper_parameters", {}))
    for callback in callbacks:
        if (resize := getattr(callback, "resize_as_saved", None)) is not None:
            with _refusing(path, callback):
                resize(twin, checkpoint)
    fill(path, twin, checkpoint)
    _masks(Path(path), _saved_masks(checkpoint), twin)


def _twin(model: LightningModule, saved: Mapping[str, Any]) -> LightningModule:
    """Copy a model; where data are to tell it a size, make one of the size that was saved."""
    sizes = {
        name: saved[name] for name, value in model.hparams.items() if value is None and saved.get(name) is not None
    }
    if not sizes:
        return copy.deepcopy(model)
    with rng_kept():
        try:
            return type(model)(**{**model.hparams, **sizes})
        except TypeError:  # it takes what its hyperparameters do not tell
            return copy.deepcopy(model)


def _try_state(path: str | os.PathLike[str], callback: Callback, state: Any) -> None:
    """Let a copy of a callback take its state."""
    before = callback.state_dict()
    with _refusing(path, callback), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of folders that have moved, which will be said once it is taken
        if not isinstance(state, Mapping):
            raise TypeError(f"it is a {type(state).__name__}")
        for key, value in before.items():
            if value is not None and state.get(key) is not None and not _alike(value, state[key]):
                raise TypeError(f"{key} is {str(state[key])[:60]!r}")
        copy.deepcopy(callback).load_state_dict(copy.deepcopy(dict(state)))


@contextmanager
def _refusing(path: str | os.PathLike[str], callback: Callback) -> Iterator[None]:
    """Say of whatever a callback complains about that the checkpoint's state of it is at fault."""
    try:
        yield
    except (UsageError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
        raise UsageError(
            f"{path} holds no state that {type(callback).__name__} has saved: {one_line(reason)}"
        ) from error


def _alike(value: Any, other: Any) -> bool:
    numbers = (int, float, Tensor)
    if isinstance(value, numbers):
        return isinstance(other, numbers)
    return isinstance(other, Mapping if isinstance(value, Mapping) else type(value))


def _saved_masks(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the packed masks of all pruning callbacks."""
    states = (state for state in checkpoint.get("callbacks", {}).values() if isinstance(state, Mapping))
    packed = (state["masks"] for state in states if isinstance(state.get("masks"), Mapping))
    return {kernel: mask for masks in packed for kernel, mask in masks.items()}


def _masks(path: Path, saved: Mapping[str, Any], model: LightningModule) -> Masks:
    kernels = find_targets(model)
    try:
        found = Masks.from_state_dict(saved, model)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    return Masks.of(kernels, {name: found.get(name, mask) for name, mask in Masks.full(kernels).items()})
