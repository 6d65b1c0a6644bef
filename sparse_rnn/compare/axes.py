"""Arguments of ``fit`` that a comparison varies or tunes, and their values."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import yaml

from sparse_rnn.config_files import parse_config
from sparse_rnn.errors import UsageError

Point = tuple[tuple[str, str], ...]
"""One value of each of several axes: argument and value, as the command line takes them."""

_KEY = re.compile(r"\w+(\.\w+)*")
_SAFE = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class Axis:
    """An argument of ``fit`` and the values that it takes in turn.

    Args:
        key: The argument, without dashes.
        values: The values, as the command line takes them.
    """

    key: str
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """The last part of the argument."""
        return self.key.rpartition(".")[2]

    @property
    def of_pruning(self) -> bool:
        """Whether it means nothing to the dense network."""
        return self.key.startswith("pruning.")

    def at_edge(self, value: str) -> bool:
        """Tell whether a value is the smallest or the largest; one that is no number is neither."""
        numbers = [_read(text) for text in self.values]
        if len(numbers) == 1 or not all(type(number) in (int, float) for number in numbers):
            return False
        return _read(value) in (min(numbers), max(numbers))


def parse_axis(text: str) -> Axis:
    """Read ``argument=value,value``, where the values are YAML.

    Raises:
        UsageError: If it cannot be read so.

    Example:
        >>> parse_axis("model.optimizer.init_args.lr=1e-3,0.01")
        Axis(key='model.optimizer.init_args.lr', values=('0.001', '0.01'))
        >>> parse_axis("model={init: glorot},{init: normal, init_scale: 0.1}").values
        ('{"init": "glorot"}', '{"init": "normal", "init_scale": 0.1}')
    """
    key, _, listed = text.partition("=")
    key = key.removeprefix("--")
    try:
        values = parse_config(f"[{listed}]")
    except yaml.YAMLError:
        values = []
    if not _KEY.fullmatch(key) or not values:
        raise UsageError(f"{text!r}: give an argument of fit and its values, as in model.hidden_size=100,400.")
    return Axis(key, tuple(dict.fromkeys(value if isinstance(value, str) else json.dumps(value) for value in values)))


def points(axes: Sequence[Axis]) -> list[Point]:
    """List every combination of the axes' values.

    Example:
        >>> points([Axis("a", ("1", "2")), Axis("b", ("x",))])
        [(('a', '1'), ('b', 'x')), (('a', '2'), ('b', 'x'))]
    """
    return [tuple(point) for point in product(*([(axis.key, value) for value in axis.values] for axis in axes))]


def covering(axes: Sequence[Axis]) -> Iterator[Point]:
    """Yield as few combinations as hold every value of every axis."""
    for at in range(max((len(axis.values) for axis in axes), default=1)):
        yield tuple((axis.key, axis.values[at % len(axis.values)]) for axis in axes)


def arguments(point: Point) -> list[str]:
    """List the arguments of ``fit`` that say a point."""
    return [word for key, value in point for word in (f"--{key}", value)]


def label(value: str) -> str:
    """Write a value for people: a mapping by its class and what it is given.

    Example:
        >>> label('{"class_path": "Cubic", "init_args": {"begin": 0.1}}'), label('{"init": "glorot"}'), label("0.1")
        ('Cubic(begin=0.1)', 'init=glorot', '0.1')
    """
    return _told(_read(value), value)


def slug(point: Point) -> str:
    """Write a point as the part of a file's name, another one for each point."""
    return "-".join(f"{key.replace('.init_args', '')}={_safe(value)}" for key, value in point)


def described(point: Iterable[tuple[str, str]]) -> str:
    """Write a point for people, each argument by its last part."""
    return ", ".join(f"{key.rpartition('.')[2]} {label(value)}" for key, value in point)


def _read(value: str) -> Any:
    """Read a value; a text that is no YAML of its own, as ``*.txt``, is itself."""
    try:
        return parse_config(value)
    except yaml.YAMLError:
        return value


def _told(found: Any, text: str) -> str:
    named = found.get("class_path", "") if isinstance(found, dict) else None
    given = found.get("init_args", found) if isinstance(found, dict) else None
    if not isinstance(named, str) or not isinstance(given, dict):
        return text
    kind = named.rpartition(".")[2]
    inner = ", ".join(f"{key}={_told(item, json.dumps(item).strip(chr(34)))}" for key, item in given.items()
                      if key != "class_path")  # fmt: skip
    return f"{kind}({inner})" if kind else inner


def _safe(value: str) -> str:
    if _SAFE.fullmatch(value):
        return value
    readable = "_".join(_SAFE.findall(label(value)))[:40]
    return f"{readable}-{hashlib.sha256(value.encode()).hexdigest()[:6]}"
