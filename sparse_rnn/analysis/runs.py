"""The runs that a report shows side by side: they are alike, and have names of their own."""

from __future__ import annotations

import copy
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sparse_rnn.callbacks.one_shot import OneShotPruning
from sparse_rnn.checkpoints import Checkpoint, local, read
from sparse_rnn.config_files import section
from sparse_rnn.errors import UsageError
from sparse_rnn.sparsity.masks import Masks


@dataclass(frozen=True)
class Trained(Checkpoint):
    """A checkpoint among others.

    Attributes:
        name: What figures and tables call it: criterion and sparsity, or ``dense``, and what tells it from the others.
        series: The name that the checkpoints of one run, before and after some training, share.
    """

    name: str
    series: str


def read_runs(
    paths: Sequence[str | os.PathLike[str]], dense: str | os.PathLike[str] | None = None, module: str | None = None
) -> list[Trained]:
    """Read checkpoints whose recurrent layers are alike, and give them names of their own.

    Args:
        paths: Checkpoints of pruned models.
        dense: The checkpoint of a model that was not pruned, which comes first.
        module: Import path of the models' class, where the checkpoints do not say it.

    Returns:
        The models; a checkpoint that is given twice comes once.

    Raises:
        MissingFileError: If a file does not exist.
        UsageError: If a file is no checkpoint, its model cannot be built, it lacks masks or has some where it should
            not, or the recurrent layers differ.
    """
    once: dict[Path, Path] = {}
    for path in map(local, paths):
        once.setdefault(path.resolve(), path)
    found = [read(path, module) for path in once.values()]
    for checkpoint in found:
        if not checkpoint.pruned:
            raise UsageError(
                f"{checkpoint.path} holds no masks: a dense model goes by --dense, or it was saved before pruning."
            )
    if dense is not None:
        found.insert(0, read(dense, module))
        if found[0].pruned:
            raise UsageError(f"{dense} holds masks, so its model is not dense: give it by --checkpoint.")
    _check_alike(found)
    return _named(found)


def _check_alike(found: Sequence[Checkpoint]) -> None:
    first, *others = found
    for other in others:
        if _shapes(first) != _shapes(other):
            raise UsageError(
                f"{first.path} and {other.path} have other recurrent layers ({_architecture(first)}; "
                f"{_architecture(other)}): analyze them one by one."
            )


def _shapes(checkpoint: Checkpoint) -> dict[str, tuple[Any, ...]]:
    return {name: (tuple(kernel.shape), kernel.gates) for name, kernel in checkpoint.masks.kernels.items()}


def _architecture(checkpoint: Checkpoint) -> str:
    return ", ".join(
        f"{name} {'×'.join(map(str, shape))} of gates {'/'.join(gates)}"
        for name, (shape, gates) in _shapes(checkpoint).items()
    )


def _named(found: Sequence[Checkpoint]) -> list[Trained]:
    """Add to names that are not unique what tells them apart: pruning and seed, the run, then step, else the path."""
    names = [_title(one.config, one.masks) if one.pruned else "dense" for one in found]
    _tell_apart(names, [_options(one) for one in found])
    _tell_apart(names, [{"seed": one.config.get("seed_everything")} for one in found])
    _tell_apart(names, [{"": place} for place in _places(found, names)])
    series = list(names)
    _tell_apart(names, [{"step": one.step} for one in found])
    same = [[other.path for other, named in zip(found, names, strict=True) if named == name] for name in names]
    _tell_apart(names, [{"": _short(one.path, paths)} for one, paths in zip(found, same, strict=True)])
    several = [len({other.folder for other in found if other.path in paths}) > 1 for paths in same]
    series = [name if others else run for name, run, others in zip(names, series, several, strict=True)]
    parts = [{field.name: getattr(one, field.name) for field in fields(one)} for one in found]
    return [Trained(**part, name=name, series=run) for part, name, run in zip(parts, names, series, strict=True)]


def _places(found: Sequence[Checkpoint], names: Sequence[str]) -> list[str]:
    """Give, for each checkpoint, the folder of its run, in short, which tells it from others of the same name.

    The run of a checkpoint is that of the last one whose configuration agrees.
    """
    told = [_told(one) for one in found]
    told = [_trained_later(one, told) for one in told]
    last = [max((other for other, its in zip(found, told, strict=True) if its == one), key=_step) for one in told]
    same = [[other.folder for other, named in zip(last, names, strict=True) if named == name] for name in names]
    return [_short(one.folder, folders) for one, folders in zip(last, same, strict=True)]


def _step(checkpoint: Checkpoint) -> int:
    return checkpoint.step


def _told(checkpoint: Checkpoint) -> dict[str, Any]:
    """Find what makes a run what it is; one that has not saved it is like no other."""
    saved = checkpoint.config or {"model": str(checkpoint.folder.resolve())}
    return {name: saved.get(name) for name in ("seed_everything", "model", "data", "pruning")}


def _trained_later(one: dict[str, Any], told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Find the run whose beginning another one is, which has the rate 0 and so trains nothing; itself if it is none."""
    later = [other for other in told if other != one and _at_rate_0(other) == one]
    return later[0] if later and all(other == later[0] for other in later) else one


def _at_rate_0(told: dict[str, Any]) -> dict[str, Any]:
    """Change the learning rate in a configuration; none where it has none."""
    _, model = section(told, "model")
    _, optimizer = section(model, "optimizer")
    if "lr" not in optimizer:
        return told
    changed = copy.deepcopy(told)
    changed["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 0
    return changed


def _short(path: Path, paths: Sequence[Path]) -> str:
    """Leave out of a path the folders that all begin with, and the parts that all end with, if they still differ."""
    begin = _alike([other.absolute().parts[:-1] for other in paths])
    rest = [other.absolute().parts[begin:] for other in paths]
    end = _alike([parts[:0:-1] for parts in rest])
    parts = path.absolute().parts[begin:]
    return "/".join(parts[: len(parts) - end])


def _alike(parts: Sequence[Sequence[str]]) -> int:
    """Count the first parts that all have in common."""
    columns = [set(column) for column in zip(*parts, strict=False)]
    return next((i for i, column in enumerate(columns) if len(column) > 1), len(columns))


def _title(config: Mapping[str, Any], masks: Masks) -> str:
    """Name the callback, unless it is that of one-shot pruning, its criterion, and the recurrent kernels' sparsity."""
    path, given = section(config, "pruning")
    names = [path.rpartition(".")[2] for path in (path, section(given, "criterion")[0]) if path]
    shown = " ".join(name for name in names if name != OneShotPruning.__name__) or "pruned"
    return f"{shown} {100 * masks.sparsity:.3g} %"


def _tell_apart(names: list[str], facts: Sequence[Mapping[str, Any]]) -> None:
    """Add to names that are alike the facts that are not."""
    alike = defaultdict(list)
    for name, known in zip(names, facts, strict=True):
        alike[name].append(known)
    names[:] = [
        ", ".join([name, *(f"{key} {value}".strip() for key, value in known.items() if _differs(key, alike[name]))])
        for name, known in zip(names, facts, strict=True)
    ]


def _differs(key: str, facts: Sequence[Mapping[str, Any]]) -> bool:
    return any(known.get(key) != facts[0].get(key) for known in facts)


def _options(checkpoint: Checkpoint) -> dict[str, Any]:
    """Find the arguments of the pruning that can be said in a word, such as the growth of dynamic sparsity."""
    _, given = section(checkpoint.config, "pruning")
    return {name: value for name, value in given.items() if isinstance(value, (str, bool, int, float))}
