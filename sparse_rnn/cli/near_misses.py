"""Says what to type instead of what the parser does not take."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lightning.pytorch import Trainer

from sparse_rnn.calls import all_parameters
from sparse_rnn.cli.named import class_of, option_of, our_classes, sections_of

_REFUSED = re.compile(r"class_path '([\w.]+)'(?:(?!class_path ').)*?Option '(\w+)' is not accepted", re.DOTALL)
_REFUSED_MAKER = re.compile(r"Option '(\w+)' is not accepted\. Got value: Namespace\(class_path='([\w.]+)'")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: (--[^\s=]+)", re.IGNORECASE)
_NO_CLASS = re.compile(r"Expected a dot import path string: (\w+)\s")
_REQUIRED = re.compile(r"the following arguments are required: .*\b(model|data)\b")
_BASES = ("LightningModule", "LightningDataModule", "PruningCallback")
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
        return _nooption_of(found[1], _options(words))
    if found := _REFUSED_MAKER.search(message):
        return _refused(found[2], found[1], words)
    if (found := _REFUSED.search(message)) and found[2] == "class_path":
        return f"In a config a {found[1].rpartition('.')[2]} has class_path and init_args, and no other key."
    if found:
        return _refused(found[1], found[2], words)
    if (found := _NO_CLASS.search(message)) and (close := difflib.get_close_matches(found[1], our_classes())):
        return f"There is no class {found[1]}; close: {', '.join(close)}."
    return message


def _refused(path: str, name: str, words: Sequence[str]) -> str:
    typed = next((option for option in map(option_of, words) if option.endswith(f".{name}")), None)
    known = class_of(path)
    if path.rpartition(".")[2] in _BASES:
        return f"{typed or name}: it is not known yet whose option that is; give a config, or --model, before it."
    if typed is None or known is None:
        return f"{path} has no option {name!r}, which a config gives it."
    return _nooption_of(typed, [typed.removesuffix(name) + option for option in all_parameters(known)])


def _nooption_of(typed: str, known: Iterable[str]) -> str:
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


def _options(words: Sequence[str]) -> Iterator[str]:
    """List the options of the trainer and of what the configs on a command line name, first the likelier ones."""
    for section, value in sections_of(words).items():
        yield f"--{section}"
        yield from (f"--{section}{key}" for key in _keys(value))
    yield from (f"--{name}" for name in _COMMON)
    yield from (f"--trainer.{name}" for name in all_parameters(Trainer))


def _keys(value: Any, prefix: str = "") -> Iterator[str]:
    """List the options of a class in a config, and those of the classes that it gets."""
    if not isinstance(value, dict) or "class_path" not in value:
        return
    known, given = class_of(value["class_path"]), value.get("init_args") or {}
    for name in dict.fromkeys([*given, *(all_parameters(known) if known else ())]):
        yield f"{prefix}.{name}"
        inner = given.get(name)
        yield from _keys(inner, f"{prefix}.{name}" + (".init_args" if known and _makes(known, name) else ""))


def _makes(known: type, name: str) -> bool:
    """Tell whether an argument is a function that makes something, whose options jsonargparse wants in full."""
    found = all_parameters(known).get(name)
    return found is not None and "Callable" in str(found.annotation)
