"""Files of models for deployment: safetensors, with what is needed to build the model again.

The metadata hold, as JSON, the sparse layers by their names (``layers``), the tensors that are stored under another
name (``shared``) and, of a LightningModule that saved its hyperparameters, its class and these (``model``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sparse_rnn.engine.compact import replaced
from sparse_rnn.engine.layers import SparseGRU, SparseLayer, SparseLSTM, SparsePeepholeLSTM, SparseRNN
from sparse_rnn.errors import MissingFileError, UsageError, one_line
from sparse_rnn.paths import check_local
from sparse_rnn.states import load_assigned
from sparse_rnn.writing import written_whole

FORMAT, VERSION = "sparse_rnn", "1"
_KINDS = {kind.__name__: kind for kind in (SparseGRU, SparseLSTM, SparsePeepholeLSTM, SparseRNN)}


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a model that :func:`compact` has made into a file; the file is whole, or not there.

    Args:
        model: The model.
        path: The file; safetensors, whatever its ending.

    Raises:
        UsageError: If the model has no sparse layer, its state is not all tensors, or the file cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from torch import nn
        >>> from sparse_rnn.engine import compact, load, save
        >>> lstm = nn.LSTM(3, 8)
        >>> _ = lstm.weight_hh_l0.data[:, 1:].zero_()
        >>> with TemporaryDirectory() as folder:
        ...     save(compact(lstm), f"{folder}/lstm.safetensors")
        ...     load(f"{folder}/lstm.safetensors").hidden_size
        8
    """
    check_local(path)
    path = Path(path)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, SparseLayer)}
    if not layers:
        raise UsageError(f"{type(model).__name__} has no sparse layer: call sparse_rnn.engine.compact first.")
    tensors, shared = _tensors(model)
    described = {name: {"class": type(layer).__name__, "options": layer.options} for name, layer in layers.items()}
    metadata = {"format": FORMAT, "version": VERSION, "layers": json.dumps(described), "shared": json.dumps(shared)}
    if (known := _description(model)) is not None:
        metadata["model"] = known
    with written_whole(path) as unfinished:
        try:
            save_file(tensors, unfinished, metadata)
        except SafetensorError as error:
            raise UsageError(f"{path} cannot be written: {one_line(str(error))}") from error


def load(path: str | os.PathLike[str], model: nn.Module | None = None) -> nn.Module:
    """Read a model from a file that :func:`save`, or ``python -m sparse_rnn export``, has written.

    Args:
        path: The file.
        model: The model as it was before it was made compact, with any weights; it stays as it is. Not needed for a
            single layer, nor for a LightningModule that saved its hyperparameters, if they are numbers and text.

    Returns:
        The compact model, in evaluation mode.

    Raises:
        MissingFileError: If there is no such file.
        UsageError: If it is no such file or damaged, cannot say how to build its model, or the model given differs.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from torch import nn
        >>> from sparse_rnn.engine import compact, load, save
        >>> model = nn.Sequential(nn.GRU(3, 8))
        >>> _ = model[0].weight_hh_l0.data[:, 1:].zero_()
        >>> with TemporaryDirectory() as folder:
        ...     save(compact(model), f"{folder}/model.safetensors")
        ...     again = load(f"{folder}/model.safetensors", model=nn.Sequential(nn.GRU(3, 8)))
        >>> again[0].density < 0.6
        True
    """
    check_local(path)
    path = Path(path)
    tensors, metadata = _read(path)
    try:
        layers = {name: _layer(known) for name, known in json.loads(metadata["layers"]).items()}
        tensors |= {name: tensors[source] for name, source in json.loads(metadata["shared"]).items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{path} is damaged: it does not say what its layers are ({error}).") from error
    if model is None and "" in layers:
        whole: nn.Module = layers[""]
    else:
        whole = _filled(path, _built(path, metadata) if model is None else model, layers)
    try:
        load_assigned(whole, tensors)
    except UsageError as error:
        raise UsageError(f"{path} is damaged: {error}") from error
    except RuntimeError as error:
        raise UsageError(f"{path} and {type(whole).__name__} differ: {one_line(str(error))}") from error
    return whole.eval()


def _tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a model, each once, and under which name those are that have several."""
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    names: dict[tuple[Any, ...], str] = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise UsageError(f"{name} in the state of {type(model).__name__} is a {kind}: a file holds only tensors.")
        key = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and names.setdefault(key, name) != name:
            shared[name] = names[key]
        else:
            tensors[name] = tensor.detach().cpu().contiguous().clone()
    return tensors, shared


def _description(model: nn.Module) -> str | None:
    """Say in JSON how to build a LightningModule; None where its hyperparameters do not tell."""
    hparams = getattr(model, "hparams", None)
    if not isinstance(hparams, Mapping) or not hparams:
        return None
    arguments = {name: value for name, value in hparams.items() if not name.startswith("_")}
    kind = type(model)
    try:
        return json.dumps({"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments})
    except TypeError:
        return None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise MissingFileError(f"There is no file {path}.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is no safetensors file, or damaged: {one_line(str(error))}") from error
    if metadata.get("format") != FORMAT:
        raise UsageError(f"{path} was not written by sparse_rnn: its metadata do not say what its layers are.")
    if metadata.get("version") != VERSION:
        raise UsageError(
            f"{path} has version {metadata.get('version')} of the format, and this sparse_rnn reads {VERSION}: "
            "upgrade, or write it anew."
        )
    return tensors, metadata


def _layer(known: Mapping[str, Any]) -> SparseLayer:
    options = dict(known["options"])
    return _KINDS[known["class"]](**{**options, "dtype": getattr(torch, options["dtype"])})


def _built(path: Path, metadata: Mapping[str, str]) -> nn.Module:
    advice = f"build it and give it as load({str(path)!r}, model=...)."
    if "model" not in metadata:
        raise UsageError(f"{path} does not say how to build its model: {advice}")
    try:
        known = json.loads(metadata["model"])
        where, _, name = known["class_path"].rpartition(".")
        kind = getattr(import_module(where), name)
        if not issubclass(kind, nn.Module):
            raise TypeError(f"{kind.__name__} is no nn.Module")
        return kind(**known["init_args"])
    except (ImportError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} does not build its model ({one_line(str(error))}), so {advice}") from error


def _filled(path: Path, model: nn.Module, layers: Mapping[str, SparseLayer]) -> nn.Module:
    """Copy a model, but not its parameters, with sparse layers in place of those of the same names."""
    modules = dict(model.named_modules())
    missing = [name for name in layers if name not in modules]
    if missing:
        raise UsageError(f"{path} and {type(model).__name__} differ: the model has no {', '.join(missing)}.")
    same: dict[Any, Any] = {parameter: parameter for parameter in model.parameters()}
    return replaced(model, same | {modules[name]: layer for name, layer in layers.items()})
