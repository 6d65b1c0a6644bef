"""Builds the model, the masks and the data that a checkpoint and the configuration of its run describe."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import LightningModule
from torch import Tensor

from sparse_rnn.config_files import section
from sparse_rnn.errors import UsageError, one_line, unwrapped
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.saved_models import arguments_of, called, class_named
from sparse_rnn.sparsity.masks import Masks, joined
from sparse_rnn.states import load_assigned

CONFIG = "config.yaml"


def build(kind: type, key: str, config: Mapping[str, Any]) -> Any:
    """Build the model or the data that a configuration describes, as Lightning's command line does.

    Args:
        kind: The class that it must be.
        key: Its key, ``model`` or ``data``.
        config: Its ``class_path`` and ``init_args``.

    Raises:
        UsageError: If there is no such class, or it does not take these arguments.

    Example:
        >>> from lightning.pytorch import LightningDataModule
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


def model_in(
    path: Path, config: Mapping[str, Any], checkpoint: Mapping[str, Any], module: str | None = None
) -> LightningModule:
    """Build the model of a checkpoint, with its weights, in evaluation mode.

    The class comes from the configuration; its arguments too, but as the checkpoint holds them where it does: a model
    may learn some of them when it is set up, such as the size of a vocabulary.

    Args:
        path: The checkpoint, for the error's sentence.
        config: The configuration of its run; empty where none was saved.
        checkpoint: What it holds.
        module: Import path of the model's class, for a checkpoint that does not say it.

    Raises:
        UsageError: If nothing says the class, it does not take these arguments, or the weights do not fit.

    Example:
        >>> model_in(Path("last.ckpt"), {}, {"state_dict": {}})
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: last.ckpt does not say of which class its model is, nor does a config.yaml ...
    """
    saved = dict(checkpoint.get("hyper_parameters", {}))
    class_path = saved.pop("_class_path", None)
    by_command_line = saved.pop("_instantiator", None) is not None
    if module and not by_command_line:
        model = called(class_named(module), checkpoint, path)
        fill(path, model, checkpoint)
        return _in_single_precision(model).eval()
    described, given = (module, {}) if module else section(config, "model")
    class_path = described or class_path
    if class_path is None:
        raise UsageError(
            f"{path} does not say of which class its model is, nor does a {CONFIG} beside it: name the "
            "class, as in --module package.Class of analyze, or save it as hyper_parameters['_class_path']."
        )
    arguments = {name: saved.get(name, value) for name, value in (given or saved).items()}
    if given and by_command_line:  # which leaves out of the configuration what it takes from another part of it
        with suppress(UsageError):  # building it says what is wrong with the class
            arguments = arguments_of(class_named(class_path), checkpoint) | arguments
    model = build(LightningModule, "model", {"class_path": class_path, "init_args": arguments})
    fill(path, model, checkpoint)
    return _in_single_precision(model).eval()


def _in_single_precision(model: LightningModule) -> LightningModule:
    """Let a model that was trained in half precision be computed with anywhere, which loses nothing."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dtype in (torch.float16, torch.bfloat16):
                tensor.data = tensor.data.float()
    return model


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
        taken = dict(checkpoint)
        model.on_load_checkpoint(taken)  # which may put other weights in the place of those
        _check_kinds(model, taken["state_dict"])
        load_assigned(model, taken["state_dict"], model.strict_loading)
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


def packed_masks(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the packed masks of all pruning callbacks.

    Args:
        checkpoint: What it holds.

    Example:
        >>> packed_masks({"callbacks": {"OneShotPruning": {"masks": {"rnn.weight_hh_l0": "bits"}}, "Timer": {}}})
        {'rnn.weight_hh_l0': 'bits'}
    """
    return {kernel: mask for masks in _by_callback(checkpoint) for kernel, mask in masks.items()}


def _by_callback(checkpoint: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    states = (state for state in checkpoint.get("callbacks", {}).values() if isinstance(state, Mapping))
    yield from (state["masks"] for state in states if isinstance(state.get("masks"), Mapping))


def masks_in(path: str | os.PathLike[str], checkpoint: Mapping[str, Any], model: LightningModule) -> Masks:
    """Give the masks that a checkpoint holds for the recurrent kernels of its model; all True where it has none.

    Args:
        path: The checkpoint, for the error's sentence.
        checkpoint: What it holds.
        model: Its model.

    Raises:
        UsageError: If masks and model do not fit.

    Example:
        >>> from sparse_rnn.modules import SequenceClassifier
        >>> masks_in("last.ckpt", {}, SequenceClassifier(8, 10, hidden_size=4)).sparsity
        0.0
    """
    kernels = find_targets(model)
    try:
        found = joined(Masks.from_state_dict(packed, model) for packed in _by_callback(checkpoint))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    return Masks.of(kernels, {name: found.get(name, mask) for name, mask in Masks.full(kernels).items()})
