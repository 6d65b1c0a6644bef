"""Every number and flag of everything public, given null, NaN, ±infinity, a boolean, a text, −1 and a huge number.

``python tests/hardening/options.py`` prints a line for each value that is not refused as it should be, and the figures:
``clear``, one sentence that names the option; ``right``, a value that is accepted and may be; ``traceback``, another
error; ``silent``, a value that is no number of the option and is accepted. Options are found by the annotations of what
the packages list in ``__all__``.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
import typing
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel
from sparse_rnn.pruning import Cubic
from sparse_rnn.recurrent import find_targets

PACKAGES = (
    *("sparse_rnn", "sparse_rnn.callbacks", "sparse_rnn.data", "sparse_rnn.data.loaders", "sparse_rnn.engine"),
    *("sparse_rnn.modules", "sparse_rnn.modules.softmax", "sparse_rnn.pruning", "sparse_rnn.pruning.structured"),
    *("sparse_rnn.recurrent", "sparse_rnn.scores", "sparse_rnn.sparsity"),
)
# What sparse_rnn makes itself, and hands to the user to read.
RECORDS = {
    *("Connections", "GateStatistics", "Group", "Kernel", "RecurrentLayer", "RecurrentModule", "Spectrum", "Targets"),
    *("Edit", "Lexicon", "Plan", "Reader", "UnitPlan", "Update", "Writer"),
}
VALUES: dict[str, Any] = {
    "null": None,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "-1": -1,
    "huge": 10**30,
    "text": "x",
    "number as text": "3",
    "true": True,
}
# Those that may be a number of an option; the others never are.
MAY_BE = ("-1", "huge")
# What is made or done one by one; a slip in their number would hang.
TIMES = ("draws", "nodes", "num_layers", "rounds")


def _model() -> nn.Module:
    return nn.GRU(3, 4)


def _optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)


def _scores() -> dict[str, torch.Tensor]:
    return {name: kernel.parameter.detach().abs() for name, kernel in find_targets(_model()).items()}


# How to make the arguments that have no default, by their names.
ARGUMENTS: dict[str, Callable[[], Any]] = {
    "allocation": lambda: "global",
    "batch": lambda: torch.zeros(5, 2, 3),
    "batch_size": lambda: 2,
    "bptt": lambda: 3,
    "cell": lambda: "gru",
    "chi": lambda: dict,
    "columns": lambda: 2,
    "criterion": lambda: "magnitude",
    "cutoffs": lambda: [5, 10],
    "dataset": lambda: TensorDataset(torch.zeros(6, 1)),
    "eval_batch_size": lambda: 2,
    "family": lambda: "ring",
    "graph": lambda: nx.path_graph(4),
    "growth": lambda: torch.ones(12, 3),
    "height": lambda: 2,
    "hidden_size": lambda: 4,
    "init": lambda: "normal",
    "input_size": lambda: 3,
    "kernel": lambda: torch.zeros(12, 3),
    "kernels": lambda: find_targets(_model()),
    "layer": _model,
    "like": lambda: torch.zeros(2),
    "lr": lambda: 0.1,
    "mark": lambda: 0,
    "mask": lambda: torch.arange(36).view(12, 3) % 2 == 0,
    "model": _model,
    "module": _model,
    "nodes": lambda: 6,
    "num_classes": lambda: 3,
    "optimizer": _optimizer,
    "params": lambda: [nn.Parameter(torch.ones(1))],
    "rank": lambda: 0,
    "rnn": _model,
    "rows": lambda: 2,
    "schedule": Cubic,
    "score": lambda: _scores,
    "seed": lambda: 0,
    "selection": lambda: importlib.import_module("sparse_rnn.sparsity").Selection(0.5),
    "share": lambda: 0.5,
    "sparsity": lambda: 0.5,
    "strength": lambda: 0.1,
    "test": lambda: "test.txt",
    "tokens": lambda: np.arange(50),
    "train": lambda: "train.txt",
    "units": lambda: 2,
    "val": lambda: "val.txt",
    "vocab_size": lambda: 20,
    "vocabulary": lambda: None,
    "width": lambda: 2,
    "words": lambda: ["a", "b"],
    "worth": lambda: torch.ones(12, 3),
}
# Arguments that go by another name, or by another value, in one place.
SPECIAL: dict[str, dict[str, Callable[[], Any]]] = {
    "LanguageModel": {"hidden_size": lambda: 4},
    "LowRank": {"rank": lambda: 2},
    "NarangPruning": {"sparsity": lambda: 0.5},
    "SentenceShuffle": {"seed": lambda: (1,)},
    "SampledSoftmaxLoss": {"num_samples": lambda: 5},
    "init_recurrent_": {"init_scale": lambda: 0.1, "forget_bias": lambda: 1.0, "update_bias": lambda: 0.0},
    "random_graph": {"density": lambda: 0.5},
    "unit_criterion": {"criterion": lambda: "UnitMagnitude"},
}
# What Lightning's own classes make of their options, is theirs to say.
LIGHTNINGS = {("SparseCheckpoint", "save_last"), ("SparseCheckpoint", "enable_version_counter")}
# Options of which there is to be one.
INSTEAD = {"NarangPruning": {"sparsity", "q", "theta"}}


@dataclass(frozen=True)
class Option:
    """A number or a flag.

    Attributes:
        owner: The name of the class or function.
        name: The name of the option.
        make: Makes the object, or calls the function, with a value of the option.
        kinds: The types that it may have, flat.
        listed: How many numbers it lists, where it is a list; 0 where it is one number.
        optional: Whether it may be null.
    """

    owner: str
    name: str
    make: Callable[[Any], Any]
    kinds: tuple[Any, ...]
    listed: int
    optional: bool

    def values(self) -> Iterator[tuple[str, Any, bool]]:
        """Yield what to give: what to call it, the value, and whether it may be right."""
        may_be = () if set(self.kinds) <= {bool, type(None)} else MAY_BE
        for called, value in VALUES.items():
            if called == "null":
                if self.listed or not self.optional:
                    yield called, [value] * self.listed if self.optional else value, False
            elif not (str in self.kinds and isinstance(value, str)) and not (bool in self.kinds and value is True):
                yield called, [value] * self.listed if self.listed else value, called in may_be
        if self.name in TIMES and self.owner != "LotteryTicket":  # which looks at the length of the training
            yield "trillion", 10**12, False


def public() -> Iterator[tuple[str, Any]]:
    """Yield classes and functions that users make and call, once each."""
    seen = set()
    for package in map(importlib.import_module, PACKAGES):
        for name in package.__all__:
            found = getattr(package, name)
            ours = str(getattr(found, "__module__", "")).startswith("sparse_rnn")
            if not (ours and (inspect.isclass(found) or inspect.isfunction(found))) or _makes_nothing(found):
                continue
            if name in RECORDS or inspect.isabstract(found) or id(found) in seen:
                continue
            seen.add(id(found))
            yield name, found
    yield "LanguageModel.generate", LanguageModel(20, "gru", 4, hidden_size=4).generate


def _makes_nothing(found: Any) -> bool:
    """Tell whether it is an error, or the type of an argument."""
    return isinstance(found, types.GenericAlias) or (inspect.isclass(found) and issubclass(found, (Exception, dict)))


def options() -> list[Option]:
    """Find all numbers and flags of what is public."""
    return [option for owner, found in public() for option in _options_of(owner, found)]


def _options_of(owner: str, found: Any) -> Iterator[Option]:
    # Fields of a dataclass may be inherited from one of another module, whose names they are written in.
    own_init = inspect.isclass(found) and not is_dataclass(found)
    hints = typing.get_type_hints(found.__init__ if own_init else found)
    parameters = inspect.signature(found).parameters
    needed = {
        name: SPECIAL.get(owner, {}).get(name, ARGUMENTS.get(name))
        for name, parameter in parameters.items()
        if (parameter.default is parameter.empty or name in SPECIAL.get(owner, {}))
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    if owner == "LanguageModel.generate":
        needed = {"prompt": lambda: [1]}

    for name, parameter in parameters.items():
        kinds = tuple(_flat(hints.get(name)))
        listed = max((_listed(kind) for kind in kinds), default=0)
        if (owner, name) in LIGHTNINGS or (not listed and not {int, float, bool}.intersection(kinds)):
            continue
        missing = [other for other, make in needed.items() if make is None and other != name]
        assert not missing, f"{owner} needs {missing}: say in ARGUMENTS how they are made"

        def make(value: Any, name: str = name, kind: Any = parameter.kind) -> Any:
            instead = INSTEAD.get(owner, set())
            left_out = instead if name in instead else {name}
            given = {other: make() for other, make in needed.items() if other not in left_out}
            if kind is inspect.Parameter.VAR_POSITIONAL:
                return found(*given.values(), value)
            return found(**given, **{name: value})

        yield Option(owner, name, make, kinds, listed, type(None) in kinds or parameter.default is None)


def _flat(hint: Any) -> Iterator[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _flat(part)
    elif typing.get_origin(hint) is typing.Literal:
        yield from (type(value) for value in typing.get_args(hint))
    else:
        yield hint


def _listed(kind: Any) -> int:
    """Count the numbers in what a type lists; 0 for what lists no numbers."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (tuple, list, Sequence) and inner and {int, float}.issuperset({*inner} - {Ellipsis}):
        return len(inner)
    return 0


def outcome(option: Option, value: Any, may_be: bool) -> str:
    """Give a value to an option, and say what comes of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = option.make(value)
            if inspect.isgenerator(made) or hasattr(made, "__next__"):
                next(made)
        except UsageError as error:
            return "clear" if option.name in str(error) else f"another option: {error}"
        except Exception as error:
            return f"traceback: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return "right" if may_be else "silent"


def main() -> int:
    """Print what is not as it should be, and the figures; give the number of the former."""
    figures = Counter[str]()
    found = options()
    for option in found:
        for called, value, may_be in option.values():
            result = outcome(option, value, may_be)
            figures[result.partition(":")[0]] += 1
            if result not in ("clear", "right"):
                print(f"{option.owner}({option.name}={called}): {result}")
    names = ("clear", "right", "another option", "traceback", "silent")
    print(
        f"{len(found)} options of {len({option.owner for option in found})} classes and functions, "
        f"{sum(figures.values())} values: " + ", ".join(f"{figures[name]} {name}" for name in names)
    )
    return sum(figures[name] for name in names[2:])


if __name__ == "__main__":
    sys.exit(bool(main()))
