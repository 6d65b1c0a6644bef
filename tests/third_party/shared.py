"""What every package of forecasts is asked: one small model, fitted with and without pruning, saved, loaded, used.

A script beside this file says how its package fits, saves and predicts. Run it with the Python of an environment that
has the package: ``python tests/third_party/darts_rnn.py``; ``.ci/third_party`` makes the environments.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sparse_rnn import GradualPruning, OneShotPruning
from sparse_rnn.callbacks import PruningCallback
from sparse_rnn.pruning.schedules import Cubic

STEPS = 40
SPARSITY = 0.9


@dataclass(frozen=True)
class Package:
    """How a package does things.

    Attributes:
        name: Package and model.
        fit: Fits for STEPS steps from a fixed seed with callbacks, and gives whatever the package works with then.
        network: Finds the network in that.
        load: Saves that to a folder, and gives what is loaded from there.
        predict: Forecasts.
    """

    name: str
    fit: Callable[[list[PruningCallback]], Any]
    network: Callable[[Any], nn.Module]
    load: Callable[[Any, Path], Any]
    predict: Callable[[Any], Any]


def series(count: int = 8, length: int = 120) -> np.ndarray:
    """Noisy sines of different periods, one a row."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=(count, length))
    return (np.sin(np.arange(length) / (3 + np.arange(count)[:, None])) + noise + 2).astype("float32")


def check(package: Package) -> None:
    """Ask all there is to ask; the first wrong answer ends the script."""
    warnings.simplefilter("ignore")
    os.chdir(tempfile.mkdtemp())  # logs and checkpoints
    for name in ("lightning.pytorch", "pytorch_lightning", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    dense = package.network(package.fit([])).state_dict()
    untouched = package.network(package.fit([OneShotPruning(sparsity=0.0)])).state_dict()
    assert all(value.equal(untouched[name]) for name, value in dense.items()), "sparsity 0 is not the run without"

    for pruning in (OneShotPruning(SPARSITY), GradualPruning(SPARSITY, Cubic(begin=2, end=STEPS // 2, frequency=2))):
        fitted = package.fit([pruning])
        _check_zeros(pruning, package.network(fitted))
        with tempfile.TemporaryDirectory() as folder:
            loaded = package.load(fitted, Path(folder))
            _check_zeros(pruning, package.network(loaded))
            forecast = np.asarray(package.predict(loaded), dtype=float)
        assert np.isfinite(forecast).all(), forecast
        print(f"{package.name}, {type(pruning).__name__}: sparsity {pruning.masks.sparsity:.3f}, saved and loaded with "
              f"exact zeros, forecast of shape {forecast.shape}", flush=True)  # fmt: skip
    print(f"{package.name}: untouched at sparsity 0", flush=True)


def _check_zeros(pruning: PruningCallback, network: nn.Module) -> None:
    """Find the removed weights by the ends of their names: the network may be a part of the module that was fitted."""
    state = network.state_dict()
    assert abs(pruning.masks.sparsity - SPARSITY) < 0.01, pruning.masks.sparsity
    for name, mask in pruning.masks.items():
        [weight] = [value for key, value in state.items() if name.endswith(key) or key.endswith(name)]
        assert not weight[~mask].any(), f"{name} has removed weights that are not 0"
        assert weight[mask].any(), f"{name} is empty"


def seed() -> None:
    """Seed what packages draw from."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what the packages themselves draw from
