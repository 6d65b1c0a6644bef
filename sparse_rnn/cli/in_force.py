"""Says what stays in force, whatever else is typed: of a checkpoint, and of a config's pruning."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace

from sparse_rnn.calls import all_parameters
from sparse_rnn.cli.named import class_of, option_of, sections_of
from sparse_rnn.config_files import section
from sparse_rnn.errors import UsageError


def refuse_other_class(typed: Namespace, final: Namespace) -> None:
    """Refuse a checkpoint whose model is of another class, which would silently take the place of the config's.

    Args:
        typed: The model's section as parsed.
        final: The same with what the checkpoint holds.

    Raises:
        UsageError: If it is.
    """
    if class_of(typed.class_path) is not class_of(final.class_path):
        raise UsageError(
            f"The checkpoint is of another model: it holds a {final.class_path}, and the config a {typed.class_path}; "
            "give the config of its run."
        )


def refuse_overridden(words: Sequence[str], typed: Namespace, final: Namespace) -> None:
    """Refuse options of the model that a checkpoint overrides, which would be of no effect.

    Args:
        words: What followed the program's name on the command line.
        typed: The model's section as parsed.
        final: The same with the hyperparameters of the checkpoint.

    Raises:
        UsageError: If there is one.
    """
    for option in map(option_of, words):
        key = f"init_args.{option.removeprefix('--model.').removeprefix('init_args.')}"
        if option.startswith("--model.") and typed.get(key) != final.get(key):
            raise UsageError(
                f"{option} {typed.get(key)}: the network of the checkpoint has {final.get(key)}, which stays; leave "
                "the option out."
            )


def refuse_strange(typed: Namespace, final: Namespace) -> None:
    """Refuse hyperparameters of a checkpoint that the constructor of the model does not take.

    Args:
        typed: The model's section as parsed.
        final: The same with the hyperparameters of the checkpoint.

    Raises:
        UsageError: If there are some.
    """
    known = class_of(final.class_path)
    added = {*final.get("dict_kwargs", {})} - {*typed.get("dict_kwargs", {})}
    if known is None or any(p.kind is p.VAR_KEYWORD for p in inspect.signature(known).parameters.values()):
        return
    if strange := sorted(added - {*all_parameters(known)}):
        raise UsageError(f"The checkpoint is of another model: {final.class_path} takes no {', '.join(strange)}.")


def kept_settings(words: Sequence[str], pruning: Namespace | None) -> str | None:
    """Say which settings of a config another pruning callback, named on the command line, goes on with.

    Args:
        words: What followed the program's name on the command line.
        pruning: The pruning section as parsed.

    Returns:
        A sentence; None where there is none.
    """
    options = [option_of(word) for word in words]
    class_path, before = section(sections_of(words), "pruning")
    name = (class_path or "").rpartition(".")[2]
    if pruning is None or "--pruning" not in options or pruning.class_path.endswith(name):
        return None
    given = {
        option.removeprefix("--pruning.").partition(".")[0] for option in options if option.startswith("--pruning.")
    }
    kept = [key for key in before if key in pruning.get("init_args", {}) and key not in given]
    if not kept:
        return None
    said = ", ".join(f"{key} {_short(pruning.init_args[key])}" for key in kept)
    return f"{pruning.class_path.rpartition('.')[2]} keeps from the {name} of the config: {said}."


def _short(value: Any) -> str:
    return str(value.class_path).rpartition(".")[2] if isinstance(value, Namespace) else str(value)
