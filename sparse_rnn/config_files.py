"""Finds configs by their names, and reads them: overlays that a name stands for, class paths that have moved."""

import difflib
import re
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from sparse_rnn.errors import MissingFileError, UsageError, one_line
from sparse_rnn.paths import check_local, is_file

MODE = "sparse_rnn"
"""The parser mode of jsonargparse that reads configs with :func:`parse_config`."""

_STANDS_FOR = {
    "gru_mnist_gradual.yaml": ("gru_mnist.yaml", "pruning/gradual.yaml"),
    "gru_mnist_l2.yaml": ("gru_mnist.yaml", "pruning/l2.yaml"),
    "gru_mnist_rigl.yaml": ("gru_mnist.yaml", "pruning/rigl.yaml"),
    "lstm_wikitext2_gradual.yaml": ("lstm_wikitext2_tied.yaml", "pruning/distiller.yaml"),
    "keep_last.yaml": (),  # what it said, every config says by now
}
"""Names of configs that are several files, later ones over earlier ones."""

_MOST_VALUES = 1_000_000
_CLAUSE_END = re.compile(r", as in |: | \(|\. |\.$")

_MOVED = {
    "sparse_rnn.modules.row_adam.": "sparse_rnn.modules.optim.row_adam.",
    "sparse_rnn.schedules.": "sparse_rnn.pruning.schedules.",
}
"""Where the classes of 0.1.0 are, by the beginnings of their paths."""


def find_config(name: str) -> list[str]:
    """Find a config in the working directory, then among the shipped ones.

    Args:
        name: A path, or the name of a shipped file such as ``gru_mnist.yaml`` or ``pruning/rigl.yaml``.

    Returns:
        The paths to read, later ones over earlier ones. Some names stand for a model's config and its overlays, and
        one that used to say something for nothing.

    Raises:
        MissingFileError: If there is none; the message names the closest shipped configs.

    Example:
        >>> [Path(path).name for path in find_config("gru_mnist_rigl.yaml")]
        ['gru_mnist.yaml', 'rigl.yaml']
    """
    check_local(name)
    if is_file(name):
        return [name]
    folder, shipped = _config_folder(), _shipped()
    files = _STANDS_FOR.get(name, (name,))
    if set(files) <= set(shipped):
        return [str(folder / file) for file in files]
    known = [*shipped, *(name for name, files in _STANDS_FOR.items() if files)]
    closest = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or sorted(known)
    raise MissingFileError(f"There is no config {name!r} here or among the shipped ones; close: {', '.join(closest)}.")


def shipped_configs() -> dict[str, str]:
    """List the shipped configs by their names, and what each is: the first clause of its comment, or its parts.

    Example:
        >>> shipped_configs()["gru_mnist_rigl.yaml"]
        'gru_mnist.yaml and pruning/rigl.yaml'
    """
    folder = _config_folder()
    files = {name: _first_clause(read_text(str(folder / name))) for name in _shipped()}
    return files | {name: " and ".join(parts) for name, parts in _STANDS_FOR.items() if parts}


def is_overlay(path: str) -> bool:
    """Tell whether a config is an overlay that takes the place of the whole pruning section before it.

    Args:
        path: Where it lies: overlays lie in a folder called ``pruning``, and have such a section.

    Example:
        >>> is_overlay("pruning/rigl.yaml"), is_overlay("gru_mnist.yaml")
        (True, False)

    Raises:
        UsageError: If it lies there and is no YAML or no mapping.
    """
    return Path(path).parent.name == "pruning" and bool(read_config(path).get("pruning"))


def parse_config(text: str) -> Any:
    """Parse the text of a config, or one value of it.

    Class paths of 0.1.0 become those of today, and a ``pruning`` section that is the name of another config becomes
    that one's.

    Args:
        text: YAML.

    Returns:
        What it holds, a mapping, a list, or a simple value.

    Raises:
        MissingFileError: If its pruning section names a config that does not exist.
        UsageError: If that config has no pruning section, or names one that names it; if anchors make the text larger
            than a config can be.

    Example:
        >>> parse_config("schedule: {class_path: sparse_rnn.schedules.Cubic}")
        {'schedule': {'class_path': 'sparse_rnn.pruning.schedules.Cubic'}}
        >>> parse_config("pruning: pruning/jacobian.yaml")["pruning"]["class_path"]
        'OneShotPruning'
    """
    return _parsed(text, ())


def read_config(name: str) -> dict[str, Any]:
    """Read a config by its name.

    Args:
        name: What :func:`find_config` takes.

    Returns:
        Its sections, of the last file that has them where the name stands for several.

    Raises:
        MissingFileError: If there is none.
        UsageError: If it is no YAML or no mapping.

    Example:
        >>> sorted(read_config("gru_digits.yaml"))
        ['data', 'model', 'pruning', 'seed_everything', 'trainer']
    """
    return _read(name, ())


def section(config: Mapping[str, Any], name: str) -> tuple[str | None, dict[str, Any]]:
    """Give the class path and the arguments of a section of a config, in whatever form it has them.

    Args:
        config: The config.
        name: What the section is called.

    Returns:
        None where there is no class path, and no arguments where there are none.

    Example:
        >>> section({"model": "SequenceClassifier"}, "model"), section({"model": {"init_args": None}}, "model")
        (('SequenceClassifier', {}), (None, {}))
    """
    found = config.get(name)
    if isinstance(found, str):
        return found, {}
    if not isinstance(found, Mapping):
        return None, {}
    path, given = found.get("class_path"), found.get("init_args")
    return (path if isinstance(path, str) else None), (dict(given) if isinstance(given, Mapping) else {})


def _read(name: str, named_by: tuple[str, ...]) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for path in find_config(name):
        try:
            found = _parsed(read_text(path), (*named_by, name))
        except yaml.YAMLError as error:
            raise UsageError(f"{path} is no YAML: {one_line(str(error))}") from error
        if not isinstance(found, Mapping):
            raise UsageError(f"{path} is no config: it has no keys.")
        sections |= found
    return sections


def read_text(path: str) -> str:
    """Read the text of a config.

    Args:
        path: Where it lies.

    Raises:
        UsageError: If it is no text, or cannot be read.

    Example:
        >>> read_text(find_config("gru_digits.yaml")[0]).startswith("# A 95 % sparse GRU")
        True
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no YAML: it is no text in UTF-8.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error


def _parsed(text: str, names: tuple[str, ...]) -> Any:
    """Parse a config.

    Args:
        text: YAML.
        names: The config's own name after those of the configs that took it for their pruning sections.
    """
    found = get_loader("yaml")(text)
    _count_values(found, {})
    found = _moved(found)
    if isinstance(found, dict) and str(found.get("pruning")).endswith((".yaml", ".yml")):
        name = found["pruning"]
        if name in names:
            raise UsageError(
                f"The pruning section of {names[-1]} names {name}, so that it would be its own: write it out."
            )
        found["pruning"] = _read(name, names).get("pruning")
        if found["pruning"] is None:
            raise UsageError(f"The pruning section names {name}, which has none itself.")
    return found


def _moved(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _moved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item) for item in value]
    if isinstance(value, str):
        return next((new + value.removeprefix(old) for old, new in _MOVED.items() if value.startswith(old)), value)
    return value


def _count_values(value: Any, known: dict[int, int | None]) -> int:
    """Count values with repetitions, as a few lines of anchors can stand for billions; refuse too many.

    Args:
        value: What was read, in which parts with anchors are there once.
        known: The counts of parts by their identities; None of those that are being counted.
    """
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = None
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count_values(part, known) for part in parts)
    count = known[id(value)]
    if count is None or count > _MOST_VALUES:
        what = "refers to itself" if count is None else f"stands for more than {_MOST_VALUES:,} values"
        raise UsageError(f"A part of the YAML {what}, by its anchors: write it out.")
    return count


def _first_clause(text: str) -> str:
    """Read the comment that a config begins with up to its first reference or full stop."""
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return _CLAUSE_END.split(" ".join(line.removeprefix("# ") for line in comment), maxsplit=1)[0]


def _shipped() -> list[str]:
    folder = _config_folder()
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.yaml"))]


def _config_folder() -> Path:
    package = Path(__file__).parent
    inside_wheel = package / "configs"
    return inside_wheel if inside_wheel.is_dir() else package.parent / "configs"


set_loader(MODE, parse_config, exceptions=(yaml.YAMLError,))
