"""Builds a model of anybody's class from what Lightning saved of its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, cast

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.parsing import AttributeDict

from sparse_rnn.errors import UsageError, one_line

_SAVED, _SAVED_AS = LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, LightningModule.CHECKPOINT_HYPER_PARAMS_NAME


def imported(class_path: str) -> None:
    """Import the module of a class, if there is one: it may say which classes of its checkpoints are safe to read.

    Example:
        >>> imported("torch.nn.GRU")
        >>> imported("GRU")
    """
    with suppress(ImportError):
        if _is_path(class_path):
            import_module(class_path.rpartition(".")[0])


def class_named(path: str) -> type[LightningModule]:
    """Import the class of a model.

    Args:
        path: Its import path, such as ``project.models.Tagger``.

    Raises:
        UsageError: If there is no such class, or it is none of a LightningModule.

    Example:
        >>> class_named("sparse_rnn.modules.LanguageModel").__name__
        'LanguageModel'
    """
    module, _, name = path.rpartition(".")
    if not _is_path(path):
        raise UsageError(
            f"{path} is no import path of a class: give one as package.Class, such as project.models.{path}."
        )
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise UsageError(
            f"{path} cannot be imported ({one_line(str(error))}): give the import path of the model's class, and start "
            "in the folder of its package or install that."
        ) from error
    except AttributeError as error:
        raise UsageError(f"{module} has no {name}: give the import path of the model's class.") from error
    # Lightning is installed under two names, each with a class of its own.
    if not (inspect.isclass(found) and any(parent.__name__ == "LightningModule" for parent in found.__mro__)):
        raise UsageError(f"{path} is no LightningModule: give the import path of the model's class.")
    return cast(type[LightningModule], found)


def _is_path(path: str) -> bool:
    """Tell whether a text names a module and what is in it."""
    return "." in path and all(path.split("."))


def called(kind: type[LightningModule], checkpoint: Mapping[str, Any], path: Any) -> LightningModule:
    """Call a class with the hyperparameters of a checkpoint, as ``load_from_checkpoint`` does.

    What was saved of one argument that held everything, ``save_hyperparameters(hparams)``, is given as that argument,
    by whose attributes and keys it is found. What the class does not take is left out.

    Args:
        kind: The class of the model.
        checkpoint: What Lightning saved.
        path: The checkpoint, for the error's sentence.

    Raises:
        UsageError: If an argument was not saved, or the class fails.

    Example:
        >>> import torch
        >>> class Tagger(LightningModule):
        ...     def __init__(self, units):
        ...         super().__init__()
        ...         self.rnn = torch.nn.GRU(3, units)
        >>> called(Tagger, {"hyper_parameters": {"units": 4, "note": "kept"}}, "last.ckpt").rnn
        GRU(3, 4)
    """
    arguments = arguments_of(kind, checkpoint)
    missing = _missing(kind, arguments)
    if missing:
        raise UsageError(
            f"{path} does not hold {', '.join(missing)}, which {kind.__name__} is called with: give it a default, or "
            "save it by save_hyperparameters()."
        )
    try:
        return kind(**arguments)
    except Exception as error:  # of a project's own code
        raise UsageError(
            f"{kind.__name__} cannot be built from the hyperparameters that {path} holds: "
            f"{one_line(f'{type(error).__name__}: {error}')}"
        ) from error


def arguments_of(kind: type, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the saved hyperparameters that a class takes, by the names of its arguments.

    Args:
        kind: The class.
        checkpoint: What Lightning saved.

    Example:
        >>> class Tagger:
        ...     def __init__(self, units):
        ...         self.units = units
        >>> arguments_of(Tagger, {"hyper_parameters": {"units": 4, "note": "kept"}})
        {'units': 4}
    """
    parameters = inspect.signature(kind).parameters
    saved, name = AttributeDict(checkpoint.get(_SAVED, {})), str(checkpoint.get(_SAVED_AS))
    if name in parameters and parameters[name].kind is not inspect.Parameter.VAR_KEYWORD:
        return {name: saved}
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return {key: saved[key] for key in saved if key in parameters or (takes_all and not key.startswith("_"))}


def _missing(kind: type, arguments: Mapping[str, Any]) -> list[str]:
    """Name what a class cannot do without and is not given."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind in named and parameter.default is inspect.Parameter.empty and name not in arguments
    ]
