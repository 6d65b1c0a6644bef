"""What the command line says of options: what to type instead, what a checkpoint overrides, what stays in force."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer

from sparse_rnn.calls import all_parameters
from sparse_rnn.config_files import find_config, read_config
from sparse_rnn.errors import UsageError

_REFUSED = re.compile(r"class_path '([\w.]+)'(?:(?!class_path ').)*?Option '(\w+)' is not accepted", re.DOTALL)
_REFUSED_MAKER = re.compile(r"Option '(\w+)' is not accepted\. Got value: Namespace\(class_path='([\w.]+)'")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: (--[^\s=]+)", re.IGNORECASE)
_NO_CLASS = re.compile(r"Expected a dot import path string: (\w+)\s")
_REQUIRED = re.compile(r"the following arguments are required: .*\b(model|data)\b")
_BASES = ("LightningModule", "LightningDataModule", "PruningCallback")
_OURS = ("sparse_rnn", "sparse_rnn.modules", "sparse_rnn.data", "sparse_rnn.callbacks", "sparse_rnn.scores")
_SECTIONS = ("model", "data", "pruning")
_COMMON = ("seed_everything", "float32_matmul_precision", "ckpt_path", "verbose", "config", "print_config")


def explained(message: str, words: Sequence[str]) -> str:
    """Say what the parser complains of in a sentence that names the option to type.

    Args:
        message: The parser's complaint.
        words: What followed the program's name on the command line.

    Returns:
        A sentence, or the complaint itself where there is nothing better to say.

    Example:
        >>> explained("unrecognized arguments: --hidden_size 3", ["fit", "--config", "gru_digits.yaml"])
        'There is no option --hidden_size; close: --model.hidden_size.'
    """
    if _REQUIRED.search(message):
        return (
            f"{words[0]} needs a model and data: give a config, as in --config gru_digits.yaml (python -m sparse_rnn "
            "configs lists them), or --model and --data."
        )
    if "No supported gpu backend" in message:
        return "--trainer.accelerator gpu: PyTorch sees no GPU here; leave it out, or give cpu."
    if found := _UNRECOGNIZED.search(message):
        return _no_option(found[1], _options(words))
    if found := _REFUSED_MAKER.search(message):
        return _refused(found[2], found[1], words)
    if (found := _REFUSED.search(message)) and found[2] == "class_path":
        return f"In a config a {found[1].rpartition('.')[2]} has class_path and init_args, and no other key."
    if found:
        return _refused(found[1], found[2], words)
    if (found := _NO_CLASS.search(message)) and (close := difflib.get_close_matches(found[1], _our_classes())):
        return f"There is no class {found[1]}; close: {', '.join(close)}."
    return message


def refuse_overridden(words: Sequence[str], typed: Namespace, final: Namespace) -> None:
    """Refuse options of the model that a checkpoint overrides, which would be of no effect.

    Args:
        words: What followed the program's name on the command line.
        typed: The model's section as parsed.
        final: The same with the hyperparameters of the checkpoint.

    Raises:
        UsageError: If there is one.
    """
    for option in map(_option, words):
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
    known = _class(final.class_path)
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
    options = [_option(word) for word in words]
    before = _named(words)["pruning"] or {}
    name = before.get("class_path", "").rpartition(".")[2]
    if pruning is None or "--pruning" not in options or pruning.class_path.endswith(name):
        return None
    given = {
        option.removeprefix("--pruning.").partition(".")[0] for option in options if option.startswith("--pruning.")
    }
    kept = [key for key in before.get("init_args", {}) if key in pruning.get("init_args", {}) and key not in given]
    if not kept:
        return None
    said = ", ".join(f"{key} {_short(pruning.init_args[key])}" for key in kept)
    return f"{pruning.class_path.rpartition('.')[2]} keeps from the {name} of the config: {said}."


def _short(value: Any) -> str:
    return str(value.class_path).rpartition(".")[2] if isinstance(value, Namespace) else str(value)


def _refused(path: str, name: str, words: Sequence[str]) -> str:
    typed = next((option for option in map(_option, words) if option.endswith(f".{name}")), None)
    known = _class(path)
    if path.rpartition(".")[2] in _BASES:
        return f"{typed or name}: it is not known yet whose option that is; give a config, or --model, before it."
    if typed is None or known is None:
        return f"{path} has no option {name!r}, which a config gives it."
    return _no_option(typed, [typed.removesuffix(name) + option for option in all_parameters(known)])


def _no_option(typed: str, known: Iterable[str]) -> str:
    section, _, name = typed.removeprefix("--").rpartition(".")
    named: dict[str, list[str]] = {}
    for option in known:
        named.setdefault(option.removeprefix("--").rpartition(".")[2], []).append(option)
    # Who has the name right is told where it belongs.
    names = [name] if name in named else difflib.get_close_matches(name, named, n=3, cutoff=0.7)
    close = [option for name in names for option in dict.fromkeys(named[name])]
    close.sort(key=lambda option: -difflib.SequenceMatcher(None, f"--{section}", option.rpartition(".")[0]).ratio())
    return f"There is no option {typed}" + (
        f"; close: {', '.join(close[:3])}." if close else ": --help lists them all."
    )


def _option(word: str) -> str:
    return word.partition("=")[0] if word.startswith("--") else ""


def _options(words: Sequence[str]) -> Iterator[str]:
    """List the options of the trainer and of what the configs on a command line name, first the likelier ones."""
    for section, value in _named(words).items():
        yield f"--{section}"
        yield from (f"--{section}{key}" for key in _keys(value))
    yield from (f"--{name}" for name in _COMMON)
    yield from (f"--trainer.{name}" for name in all_parameters(Trainer))


def _named(words: Sequence[str]) -> dict[str, Any]:
    """Read what the configs on a command line say of model, data and pruning."""
    sections: dict[str, Any] = dict.fromkeys(_SECTIONS)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, given, value = word.partition("=")
        if option in ("-c", "--config"):
            for path in find_config(value if given else following):
                sections |= {name: part for name, part in read_config(path).items() if name in sections}
    return sections


def _keys(value: Any, prefix: str = "") -> Iterator[str]:
    """List the options of a class in a config, and those of the classes that it gets."""
    if not isinstance(value, dict) or "class_path" not in value:
        return
    known, given = _class(value["class_path"]), value.get("init_args") or {}
    for name in dict.fromkeys([*given, *(all_parameters(known) if known else ())]):
        yield f"{prefix}.{name}"
        inner = given.get(name)
        yield from _keys(inner, f"{prefix}.{name}" + (".init_args" if known and _makes(known, name) else ""))


def _makes(known: type, name: str) -> bool:
    """Tell whether an argument is a function that makes something, whose options jsonargparse wants in full."""
    found = all_parameters(known).get(name)
    return found is not None and "Callable" in str(found.annotation)


def _class(path: str) -> type | None:
    """Find a class by an import path, or a short name of ours."""
    module, _, name = path.rpartition(".")
    for place in [module] if module else _OURS:
        try:
            found = getattr(import_module(place), name, None)
        except ImportError:
            continue
        if isinstance(found, type):
            return found
    return None


def _our_classes() -> list[str]:
    return [name for place in _OURS for name, found in vars(import_module(place)).items() if isinstance(found, type)]
