"""Reads trained models back from Lightning's checkpoints: weights, masks, and the configuration of their run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule

from sparse_rnn.callbacks.one_shot import OneShotPruning
from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.cli.arguments import one_line
from sparse_rnn.config_files import find_config
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.sparsity.masks import Masks

CONFIG = "config.yaml"


@dataclass(frozen=True)
class Trained:
    """A model as a checkpoint holds it.

    Attributes:
        name: What figures and tables call it: criterion and sparsity, or ``dense``, and what tells it from the others.
        series: The name that the checkpoints of one run, before and after some training, share.
        path: The checkpoint.
        folder: The folder of the run, which holds its configuration and event files.
        epoch: The epoch that it was saved in, from 0.
        step: Optimizer steps taken.
        model: The model, in evaluation mode, on the CPU.
        masks: The masks of its recurrent kernels; all True for a dense model.
        pruned: Whether a callback pruned it.
        config: The configuration of the run; empty where none was saved.
    """

    name: str
    series: str
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


def read_checkpoints(paths: Sequence[Path], dense: Path | None = None) -> list[Trained]:
    """Read checkpoints whose recurrent layers are alike, and give them names of their own.

    Args:
        paths: Checkpoints of pruned models.
        dense: The checkpoint of a model that was not pruned, which comes first.

    Returns:
        The models; a checkpoint that is given twice comes once.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is no checkpoint, its model cannot be built, it lacks masks or has some where it should
            not, or the recurrent layers differ.
    """
    read = [_read(path) for path in dict.fromkeys(paths)]
    for trained in read:
        if not trained.pruned:
            raise ValueError(
                f"{trained.path} holds no masks: a dense model goes by --dense, or it was saved before pruning."
            )
    if dense is not None:
        read.insert(0, _read(dense))
        if read[0].pruned:
            raise ValueError(f"{dense} holds masks, so its model is not dense: give it by --checkpoint.")
    _check_alike(read)
    return _named(read)


def build(kind: type, key: str, config: Mapping[str, Any]) -> Any:
    """Build the model or the data that a configuration describes, as Lightning's command line does.

    Args:
        kind: The class that it must be.
        key: Its key, ``model`` or ``data``.
        config: Its ``class_path`` and ``init_args``.

    Raises:
        ValueError: If there is no such class, or it does not take these arguments.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, key, fail_untyped=False, required=True)
    try:
        return parser.instantiate_classes(parser.parse_object({key: dict(config)}))[key]
    except ArgumentError as error:
        raise ValueError(f"The {key} of the run cannot be built: {one_line(str(error))}") from error


def data_of(trained: Trained, override: str | None = None) -> LightningDataModule:
    """The data of a run.

    Args:
        trained: The model that was trained on them.
        override: A config whose ``data`` section is taken instead.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If neither names the data.
    """
    source = trained.folder / CONFIG if override is None else Path(find_config(override))
    section = (trained.config if override is None else _yaml(source)).get("data")
    if not isinstance(section, Mapping):
        raise ValueError(f"{source} names no data: give a config with a data section by --data.")
    data: LightningDataModule = build(LightningDataModule, "data", section)
    return data


def _read(path: Path) -> Trained:
    checkpoint = load_checkpoint(path)
    # Lightning puts checkpoints/ into the folder where the command line saves config.yaml.
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    config = _yaml(folder / CONFIG) if (folder / CONFIG).exists() else {}
    model = _model(path, config, checkpoint)
    saved = _saved_masks(checkpoint)
    masks = _masks(path, saved, model)
    name = _title(config.get("pruning"), masks) if saved else "dense"
    return Trained(
        name=name,
        series=name,
        path=path,
        folder=folder,
        epoch=checkpoint.get("epoch", 0),
        step=checkpoint.get("global_step", 0),
        model=model,
        masks=masks,
        pruned=bool(saved),
        config=config,
    )


def _yaml(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {one_line(str(error))}") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} is no config: it has no keys.")
    return found


def _model(path: Path, config: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> LightningModule:
    """The class comes from the configuration; its arguments too, but as the checkpoint holds them where it does.

    A model may learn some of them when it is set up, such as the size of a vocabulary.
    """
    saved = dict(checkpoint.get("hyper_parameters", {}))
    class_path = saved.pop("_class_path", None)
    saved.pop("_instantiator", None)
    described = config.get("model", {})
    class_path = described.get("class_path", class_path)
    if class_path is None:
        raise ValueError(
            f"{path} does not say of which class its model is, nor does a {CONFIG} beside it: analyze reads what "
            "python -m sparse_rnn fit has saved."
        )
    arguments = described.get("init_args", saved)
    arguments = {name: saved.get(name, value) for name, value in arguments.items()}
    model: LightningModule = build(LightningModule, "model", {"class_path": class_path, "init_args": arguments})
    try:  # as LightningModule.load_from_checkpoint does, but that the weights stay in the file until they are used
        model.configure_model()
        model.on_load_checkpoint(dict(checkpoint))
        model.load_state_dict(checkpoint["state_dict"], strict=model.strict_loading, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"{path} and the {type(model).__name__} that its run describes differ: {one_line(str(error))}"
        ) from error
    return model.eval()


def _saved_masks(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The packed masks of all pruning callbacks."""
    states = (state for state in checkpoint.get("callbacks", {}).values() if isinstance(state, Mapping))
    packed = (state["masks"] for state in states if isinstance(state.get("masks"), Mapping))
    return {kernel: mask for masks in packed for kernel, mask in masks.items()}


def _masks(path: Path, saved: Mapping[str, Any], model: LightningModule) -> Masks:
    kernels = find_targets(model)
    try:
        found = Masks.from_state_dict(saved, model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Masks.of(kernels, {name: found.get(name, mask) for name, mask in Masks.full(kernels).items()})


def _check_alike(read: Sequence[Trained]) -> None:
    first, *others = read
    for other in others:
        if _shapes(first) != _shapes(other):
            raise ValueError(
                f"{first.path} and {other.path} have other recurrent layers ({_architecture(first)}; "
                f"{_architecture(other)}): analyze them one by one."
            )


def _shapes(trained: Trained) -> dict[str, tuple[Any, ...]]:
    return {name: (tuple(kernel.shape), kernel.gates) for name, kernel in trained.masks.kernels.items()}


def _architecture(trained: Trained) -> str:
    return ", ".join(
        f"{name} {'×'.join(map(str, shape))} of gates {'/'.join(gates)}"
        for name, (shape, gates) in _shapes(trained).items()
    )


def _title(pruning: Any, masks: Masks) -> str:
    """The callback, unless it is that of one-shot pruning, its criterion, and the sparsity of the recurrent kernels."""
    pruning = pruning if isinstance(pruning, Mapping) else {}
    criterion = pruning.get("init_args", {}).get("criterion")
    paths = [pruning.get("class_path"), criterion["class_path"] if isinstance(criterion, Mapping) else criterion]
    names = [path.rpartition(".")[2] for path in paths if path]
    shown = " ".join(name for name in names if name != OneShotPruning.__name__) or "pruned"
    return f"{shown} {100 * masks.sparsity:.3g} %"


def _named(read: Sequence[Trained]) -> list[Trained]:
    """Adds to names that are not unique what tells them apart: pruning and seed, then step, else the path."""
    names = [trained.name for trained in read]
    _tell_apart(names, [_options(trained) for trained in read])
    _tell_apart(names, [{"seed": trained.config.get("seed_everything")} for trained in read])
    series = list(names)
    _tell_apart(names, [{"step": trained.step} for trained in read])
    alike = [names.count(name) > 1 for name in names]
    _tell_apart(names, [{"": trained.path} for trained in read])
    series = [name if same else run for name, run, same in zip(names, series, alike, strict=True)]
    return [replace(trained, name=name, series=run) for trained, name, run in zip(read, names, series, strict=True)]


def _tell_apart(names: list[str], facts: Sequence[Mapping[str, Any]]) -> None:
    """Adds to names that are alike the facts that are not."""
    alike = defaultdict(list)
    for name, known in zip(names, facts, strict=True):
        alike[name].append(known)
    names[:] = [
        ", ".join([name, *(f"{key} {value}".strip() for key, value in known.items() if _differs(key, alike[name]))])
        for name, known in zip(names, facts, strict=True)
    ]


def _differs(key: str, facts: Sequence[Mapping[str, Any]]) -> bool:
    return any(known.get(key) != facts[0].get(key) for known in facts)


def _options(trained: Trained) -> dict[str, Any]:
    """The arguments of the pruning that can be said in a word, such as the growth of dynamic sparsity."""
    given = (trained.config.get("pruning") or {}).get("init_args", {})
    return {name: value for name, value in given.items() if isinstance(value, (str, bool, int, float))}
