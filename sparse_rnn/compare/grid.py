"""What a comparison runs: the command line of each fit."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparse_rnn.compare.methods import Method
from sparse_rnn.config_files import read_config

DENSE = "dense"
METRICS = "metrics.json"
_RECORDER = "sparse_rnn.compare.recorder.MetricsRecorder"


@dataclass(frozen=True)
class Run:
    """One fit of a comparison: ``dense`` at sparsity 0, or a method at a sparsity."""

    method: str
    sparsity: float
    seed: int

    def __str__(self) -> str:
        names = [self.method] if self.method == DENSE else [self.method, str(self.sparsity)]
        return "-".join([*names, f"seed{self.seed}"])


@dataclass(frozen=True)
class Grid:
    """A comparison.

    Args:
        configs: Paths of the fits' configs, later ones over earlier ones.
        methods: What prunes.
        sparsities: Shares of the weights to remove.
        seeds: Number of seeds, from 0 on.
        output: Folder of everything that is written.
        jobs: Fits that run at the same time.
        overrides: Other arguments of every fit.
    """

    configs: tuple[str, ...]
    methods: tuple[Method, ...]
    sparsities: tuple[float, ...]
    seeds: int
    output: Path
    jobs: int
    overrides: tuple[str, ...]

    def runs(self) -> list[Run]:
        """List every fit, seed by seed, so that a comparison that is stopped early has whole tables of fewer seeds."""
        cells = [(DENSE, 0.0), *((method.name, sparsity) for method in self.methods for sparsity in self.sparsities)]
        return [Run(name, sparsity, seed) for seed in range(self.seeds) for name, sparsity in cells]

    def folder(self, run: Run) -> Path:
        """Name the folder that a fit writes to."""
        return self.output / str(run)

    def fit_arguments(self, run: Run) -> list[str]:
        """List what follows ``python -m sparse_rnn`` in the command line of one fit."""
        method = self._method(run)
        if method is None:
            pruning, overrides = ["--pruning", "null"], _without_pruning(self.overrides)
        else:
            pruning, overrides = method.arguments(run.sparsity, run.seed), list(self.overrides)
        folder = self.folder(run)
        return [
            "fit",
            *(argument for config in self.configs for argument in ("--config", config)),
            *("--trainer.enable_progress_bar", "false"),
            *pruning,
            *overrides,
            *("--seed_everything", str(run.seed)),
            *("--trainer.default_root_dir", str(folder)),
            *(f"--trainer.callbacks+={_RECORDER}", "--trainer.callbacks.path", str(folder / METRICS)),
        ]

    def settings(self, run: Run) -> list[str]:
        """List what a fit is told beside method, sparsity and seed; a table holds no runs of other settings."""
        digests = map(_digest, self.configs)
        method = self._method(run)
        return [*digests, *self.overrides, *(method.pruning if method else ())]

    def _method(self, run: Run) -> Method | None:
        return next((method for method in self.methods if method.name == run.method), None)


def _digest(config: str) -> str:
    """Digest a config's text, and the pruning section that it may take from another one."""
    pruning = json.dumps(read_config(config).get("pruning"))
    return hashlib.sha256(Path(config).read_bytes() + pruning.encode()).hexdigest()


def _without_pruning(overrides: Sequence[str]) -> list[str]:
    """Leave out ``--pruning.x=1`` and ``--pruning.x 1``."""
    kept: list[str] = []
    dropping = False
    for argument in overrides:
        if argument.startswith("--"):
            dropping = argument.startswith("--pruning.")
        if not dropping:
            kept.append(argument)
    return kept
