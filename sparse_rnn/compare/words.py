"""The words of a command line of ``fit``, which tables hand on."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import yaml
from jsonargparse import get_loader

from sparse_rnn.paths import is_address


def names_in(words: Sequence[str]) -> list[str]:
    """List the arguments that words name, without ``init_args``, which may be left out.

    Example:
        >>> names_in(["--data.init_args.seed", "3", "--trainer.max_epochs=2"])
        ['--data.seed', '--trainer.max_epochs']
    """
    return [without_init_args(word.partition("=")[0]) for word in words if word.startswith("--")]


def without_init_args(name: str) -> str:
    """Write an argument in the one of its two spellings that is shorter.

    Example:
        >>> without_init_args("model.optimizer.init_args.lr")
        'model.optimizer.lr'
    """
    return name.replace(".init_args", "")


def divided(words: Sequence[str], section: str) -> tuple[list[str], list[str]]:
    """Divide words into those of a section of the config, with their values, and all others.

    Example:
        >>> divided(["--data.seed", "3", "--trainer.max_epochs=2", "--data=MNIST"], "data")
        (['--data.seed', '3', '--data=MNIST'], ['--trainer.max_epochs=2'])
    """
    own: list[str] = []
    others: list[str] = []
    into = others
    for word in words:
        if word.startswith("--"):
            into = own if word.partition("=")[0].split(".")[0] == f"--{section}" else others
        into.append(word)
    return own, others


def path_words(option: str, path: str | Path) -> tuple[str, str]:
    """Give a path to ``fit`` so that its parser, which reads values as YAML, has that path and nothing else.

    Quotes would become part of the path.

    Args:
        option: ``--ckpt_path``, an argument of the Trainer, or one of a class in the Trainer's section.
        path: The path; an address is handed on as it is.

    Example:
        >>> path_words("--ckpt_path", Path("study", "last.ckpt"))
        ('--ckpt_path', 'study/last.ckpt')
        >>> path_words("--ckpt_path", Path("null"))
        ('--ckpt_path', './null')
        >>> path_words("--trainer.logger.save_dir", Path("a: b"))
        ('--trainer.logger.init_args', '{"save_dir": "./a: b"}')
    """
    text = str(path)
    if not _is_text(text) and not is_address(text):
        text = os.path.join(os.curdir, text)
    owner, _, name = option.rpartition(".")
    # What is no text is taken as it is typed, if not among the arguments of a class.
    if _is_text(text) or owner.count(".") == 0:
        return option, text
    return f"{owner}.init_args", json.dumps({name: text})


def _is_text(value: str) -> bool:
    try:
        return isinstance(get_loader("yaml")(value), str)
    except yaml.YAMLError:
        return True
