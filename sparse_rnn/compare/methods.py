"""What a comparison prunes by: a criterion, in one shot, or the ``pruning`` section of a config."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from sparse_rnn.callbacks import PruningCallback
from sparse_rnn.config_files import read_config
from sparse_rnn.errors import UsageError
from sparse_rnn.scores import criterion_named


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Args:
        name: What to call it.
        pruning: The arguments of ``fit`` that choose the callback, without its sparsity and seed.
        takes_seed: Whether the callback has a seed.
        one_shot: Whether the callback can shuffle its masks: it chooses them once.
        control_of: The name of the method whose masks it shuffles; None of any other.
    """

    name: str
    pruning: tuple[str, ...]
    takes_seed: bool = True
    one_shot: bool = True
    control_of: str | None = None

    def arguments(self, sparsity: float, seed: int) -> list[str]:
        """List the arguments of ``fit`` for one run."""
        # The seed of the masks too: random ones would otherwise be the same for every seed.
        seeded = ["--pruning.seed", str(seed)] if self.takes_seed else []
        return [*self.pruning, "--pruning.sparsity", str(sparsity), *seeded]


def by_criterion(criterion: str) -> Method:
    """Prune in one shot by a criterion: the name of its class, its short name, or its import path."""
    if "." not in criterion:
        criterion = type(criterion_named(criterion)).__name__
    return Method(criterion.rpartition(".")[2], ("--pruning", "OneShotPruning", "--pruning.criterion", criterion))


def from_config(name: str, base: str) -> Method:
    """Take the pruning of a config, of which nothing else is used.

    Args:
        name: A path or the name of a shipped config. Its stem, without the base's where it begins with that, names the
            method.
        base: Name of the config of the fits.

    Raises:
        MissingFileError: If there is no such config.
        UsageError: If it prunes nothing, or its pruning cannot be used.
    """
    pruning = read_config(name).get("pruning")
    if not pruning:
        raise UsageError(f"{name} has no pruning section: give a config that says which callback prunes, and how.")
    options = _options(pruning, name)
    if "sparsity" not in options:
        raise UsageError(f"The pruning of {name} takes no sparsity: it cannot be compared at one.")
    if isinstance(pruning, str):
        pruning = {"class_path": pruning}  # quoted by JSON, a bare name would not be one
    # null first: otherwise the arguments that the base config gives the same class would stay in force.
    arguments = ("--pruning", "null", "--pruning", json.dumps(pruning))
    title = Path(name).stem.removeprefix(f"{Path(base).stem}_")
    return Method(title, arguments, "seed" in options, "shuffle" in options)


def shuffled(method: Method) -> Method:
    """Return the control of a one-shot method: its masks, shuffled inside every kernel and gate."""
    arguments = (*method.pruning, "--pruning.shuffle", "true")
    return replace(method, name=f"{method.name}-shuffled", pruning=arguments, control_of=method.name)


def _options(pruning: Any, name: str) -> Mapping[str, Any]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(PruningCallback, "pruning")
    try:
        return parser.parse_object({"pruning": pruning}).pruning.get("init_args", Namespace()).as_dict()
    except ArgumentError as error:
        raise UsageError(f"The pruning section of {name} cannot be used: {error}") from None
