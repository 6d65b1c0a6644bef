"""What a seed of a comparison decides beside weights and masks: the order of the batches, and generated data."""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule

from sparse_rnn.config_files import read_config


def data_takes_seed(configs: Sequence[str], overrides: Sequence[str]) -> bool:
    """Tell whether the data of fits have a seed, without which all seeds of a table would train in one order.

    Args:
        configs: Paths of the fits' configs, later ones over earlier ones.
        overrides: Other arguments of every fit, among which may be a ``--data``.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data", required=False)
    given = [item for item in (read_config(config).get("data") for config in configs) if item]
    data = reduce(_over, [*given, *_chosen(overrides)], None)
    try:
        parsed = parser.parse_object({"data": data}).data
    except ArgumentError:
        return False  # the fits say what is wrong with it, in their own words
    return parsed is not None and "seed" in parsed.get("init_args", Namespace())


def _over(before: Any, after: Any) -> Any:
    """Lay a data section over another: of another class, or options of the same."""
    if isinstance(before, dict) and isinstance(after, dict) and after.get("class_path") in (None, before["class_path"]):
        return before | after | {"init_args": (before.get("init_args") or {}) | (after.get("init_args") or {})}
    return after


def _chosen(overrides: Sequence[str]) -> list[dict[str, str]]:
    """Return the classes that ``--data X`` and ``--data=X`` name."""
    joined = [word.removeprefix("--data=") for word in overrides if word.startswith("--data=")]
    apart = [value for name, value in pairwise(overrides) if name == "--data"]
    return [{"class_path": name} for name in (*joined, *apart)]
