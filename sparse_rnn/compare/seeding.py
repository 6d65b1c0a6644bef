"""What a seed of a comparison decides beside weights and masks: the order of the batches, and generated data."""

import json
from collections.abc import Sequence
from functools import reduce
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule

from sparse_rnn.compare.words import divided
from sparse_rnn.config_files import read_config


def data_takes_seed(configs: Sequence[str], words: Sequence[str]) -> bool:
    """Tell whether the data of fits have a seed, without which all seeds of a table would train in one order.

    Args:
        configs: Paths of the fits' configs, later ones over earlier ones.
        words: Other arguments of a fit, among which may be some of the data.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data", required=False)
    given = [item for item in (read_config(config).get("data") for config in configs) if item]
    data = reduce(_over, map(_as_mapping, given), None)
    of_configs = [] if data is None else ["--data", json.dumps(data)]
    try:
        parsed = parser.parse_args([*of_configs, *divided(words, "data")[0]]).data
    except ArgumentError:
        return False  # the fits say what is wrong with it, in their own words
    return parsed is not None and "seed" in parsed.get("init_args", Namespace())


def _as_mapping(data: Any) -> Any:
    return {"class_path": data} if isinstance(data, str) else data


def _over(before: Any, after: Any) -> Any:
    """Lay a data section over another: of another class, or options of the same."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    own, other = before.get("init_args") or {}, after.get("init_args") or {}
    same = after.get("class_path") in (None, before.get("class_path"))
    if not same or not isinstance(own, dict) or not isinstance(other, dict):
        return after
    return before | after | {"init_args": own | other}
