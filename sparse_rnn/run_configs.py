"""Reads what the configuration of a run says of the trainer, and moves everything that such a run writes elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparse_rnn.config_files import section
from sparse_rnn.paths import is_address

_RECORDER = "MetricsRecorder"
_WRITERS = (_RECORDER, "KeepWeights")  # what other callbacks call a path may be a file that they read
_WRITERS_BELOW_LOGS = ("PredictionFile",)
_OF_LOGGERS = ("save_dir", "dir")
_OF_THE_RUN = ("last", "best", "hpc")  # what Lightning looks for in the folder that a run writes to


def trainer_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the trainer's section of a configuration; empty where there is none, or no whole one.

    Example:
        >>> trainer_of({"trainer": {"max_epochs": 3}}), trainer_of({"trainer": "max_ep"})
        ({'max_epochs': 3}, {})
    """
    found = config.get("trainer")
    return dict(found) if isinstance(found, Mapping) else {}


def recorded_in(config: Mapping[str, Any]) -> str | None:
    """Give the name of the file in which a comparison's run recorded what it reached; None where it is of none.

    Example:
        >>> recorder = {"class_path": "sparse_rnn.compare.recorder.MetricsRecorder", "init_args": {"path": "a/b.json"}}
        >>> recorded_in({"trainer": {"callbacks": [recorder, "EarlyStopping"]}}), recorded_in({})
        ('b.json', None)
    """
    callbacks = trainer_of(config).get("callbacks")
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        name, given = _class_of(callback)
        if name == _RECORDER and isinstance(given.get("path"), str):
            return Path(given["path"]).name
    return None


def moved(config: Mapping[str, Any], folder: str | os.PathLike[str], to: str | os.PathLike[str]) -> dict[str, Any]:
    """Change the configuration of a run so that the same fit leaves alone what the run has written.

    What is read stays where it is, such as the weights that a fit starts from. A checkpoint that the run itself has
    written is none to start from: it may be that of the end.

    Args:
        config: The configuration.
        folder: The folder of the run.
        to: The folder to write to.

    Returns:
        A configuration whose loggers, callbacks and profilers write below that folder.

    Example:
        >>> config = {"trainer": {"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "run"}}}}
        >>> moved(config, "run", "again")["trainer"]["logger"]["init_args"]
        {'save_dir': 'again'}
    """
    trainer = trainer_of(config)
    for name in ("logger", "callbacks", "profiler"):
        if name in trainer:
            trainer[name] = _part_moved(trainer[name], Path(to))
    result = {**config, "trainer": trainer | {"default_root_dir": str(to)}}
    if isinstance(start := config.get("ckpt_path"), str):
        result["ckpt_path"] = _start(start, Path(folder))
    return result


def _class_of(part: Any) -> tuple[str, dict[str, Any]]:
    path, given = section({"part": part}, "part")
    return (path or "").rpartition(".")[2], given


def _part_moved(part: Any, to: Path) -> Any:
    if isinstance(part, list):
        return [_part_moved(one, to) for one in part]
    name, given = _class_of(part)
    texts = {key: value for key, value in given.items() if isinstance(value, str)}
    places = {key: str(to) for key in _OF_LOGGERS if key in texts}
    if "dirpath" in texts:
        places["dirpath"] = str(to / Path(texts["dirpath"]).name)
    if "path" in texts and name in _WRITERS + _WRITERS_BELOW_LOGS:
        places["path"] = str(Path("" if name in _WRITERS_BELOW_LOGS else to, Path(texts["path"]).name))
    return {**part, "init_args": {**given, **places}} if places else part


def _start(path: str, folder: Path) -> str | None:
    """Say from which checkpoint the same fit starts elsewhere, and from any working directory."""
    if path in _OF_THE_RUN:
        return None
    if is_address(path) or path.startswith("registry"):
        return path
    return None if Path(path).resolve().is_relative_to(folder.resolve()) else str(Path(path).absolute())
