"""What the words of a command line name: options, sections of configs, classes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from sparse_rnn.config_files import find_config, read_config

OURS = ("sparse_rnn", "sparse_rnn.modules", "sparse_rnn.data", "sparse_rnn.callbacks", "sparse_rnn.scores")
SECTIONS = ("model", "data", "pruning")


def option_of(word: str) -> str:
    """Return the option that a word is or begins with; empty where it is none."""
    return word.partition("=")[0] if word.startswith("--") else ""


def sections_of(words: Sequence[str]) -> dict[str, Any]:
    """Read what the configs on a command line say of model, data and pruning."""
    sections: dict[str, Any] = dict.fromkeys(SECTIONS)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, given, value = word.partition("=")
        if option in ("-c", "--config"):
            for path in find_config(value if given else following):
                sections |= {name: part for name, part in read_config(path).items() if name in sections}
    return sections


def class_of(path: str) -> type | None:
    """Find a class by an import path, or a short name of ours."""
    module, _, name = path.rpartition(".")
    for place in [module] if module else OURS:
        try:
            found = getattr(import_module(place), name, None)
        except ImportError:
            continue
        if isinstance(found, type):
            return found
    return None


def our_classes() -> list[str]:
    """List the short names that classes of ours go by."""
    return [name for place in OURS for name, found in vars(import_module(place)).items() if isinstance(found, type)]
