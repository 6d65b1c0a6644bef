"""What a comparison runs: the command line of each fit."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from sparse_rnn.compare.axes import Axis, Point, arguments, points, slug
from sparse_rnn.compare.methods import Method
from sparse_rnn.compare.words import divided, path_words
from sparse_rnn.config_files import read_config
from sparse_rnn.paths import is_file

Stage = Literal["tune", "final"]

DENSE = "dense"
METRICS = "metrics.json"
TUNING_SEED = 1000  # none of those that are reported
_RECORDER = "sparse_rnn.compare.recorder.MetricsRecorder"


@dataclass(frozen=True)
class Cell:
    """A place of the table.

    Args:
        method: The row: ``dense``, or the name of a method.
        sparsity: Share of the weights that are removed, 0 of the dense network.
        varied: A value of each axis that the method takes.
    """

    method: str
    sparsity: float
    varied: Point = ()

    def __str__(self) -> str:
        parts = [self.method, "" if self.method == DENSE else str(self.sparsity), slug(self.varied)]
        return "-".join(filter(None, parts))


@dataclass(frozen=True)
class Run:
    """One fit of a comparison.

    Args:
        cell: The place of the table that it is made for.
        seed: The seed of the fit and of the pruning.
        tuned: A value of each argument that is tuned.
        stage: Whether it is made to choose those values, or to be reported.
    """

    cell: Cell
    seed: int
    tuned: Point = ()
    stage: Stage = "final"

    def __str__(self) -> str:
        end = f"seed{self.seed}" if self.stage == "final" else self.stage
        return "-".join(filter(None, [str(self.cell), slug(self.tuned), end]))


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
        vary: The axes of the table.
        tune: What every cell of the table has its own best values of.
        tune_with: Further arguments of the fits that choose those.
        seeds_data: Whether the data have a seed, which is to be that of the fit.
        metric: What to compare by; None for the best of ``val/error``, ``val/ppl`` and ``val/loss`` that all fits log.
        dense: Whether the dense network is a row.
    """

    configs: tuple[str, ...]
    methods: tuple[Method, ...]
    sparsities: tuple[float, ...]
    seeds: int
    output: Path
    jobs: int
    overrides: tuple[str, ...]
    vary: tuple[Axis, ...] = ()
    tune: tuple[Axis, ...] = ()
    tune_with: tuple[str, ...] = ()
    seeds_data: bool = False
    metric: str | None = None
    dense: bool = True

    @property
    def rows(self) -> list[str]:
        """The names of the table's rows."""
        return [*([DENSE] if self.dense else []), *(method.name for method in self.methods)]

    def cell(self, row: str, sparsity: float, point: Point) -> Cell:
        """Find the cell of a row: the dense network has the same at every sparsity and along every axis of pruning."""
        taken = {axis.key for axis in taken_by(row, self.vary)}
        return Cell(row, 0.0 if row == DENSE else sparsity, tuple(pair for pair in point if pair[0] in taken))

    def cells(self) -> list[Cell]:
        """List every cell once."""
        return [cell for row in self.rows for cell in self.cells_of(row)]

    def cells_of(self, row: str) -> list[Cell]:
        """List every cell of a row once."""
        places = [(sparsity, point) for sparsity in self.sparsities for point in points(self.vary)]
        return list(dict.fromkeys(self.cell(row, *place) for place in places))

    def tuning_runs(self) -> list[Run]:
        """List the fits that the tuned values are chosen by."""
        return [
            Run(cell, TUNING_SEED, tuned, "tune")
            for cell in self.cells()
            for tuned in points(taken_by(cell.method, self.tune))
            if tuned
        ]

    def runs(self, chosen: Mapping[Cell, Point] | None = None) -> list[Run]:
        """List the fits to report, seed by seed, so that a comparison that is stopped early has whole tables.

        Args:
            chosen: The tuned values of each cell; one that has none yet, but needs some, has no runs.
        """
        tuned = {cell: () for cell in self.cells() if not taken_by(cell.method, self.tune)} | dict(chosen or {})
        return [Run(cell, seed, tuned[cell]) for seed in range(self.seeds) for cell in self.cells() if cell in tuned]

    def folder(self, run: Run) -> Path:
        """Name the folder that a fit writes to."""
        return self.output / str(run)

    def fit_arguments(self, run: Run) -> list[str]:
        """List what follows ``python -m sparse_rnn`` in the command line of one fit."""
        method = self._method(run)
        given = [self.overrides, arguments(run.cell.varied), arguments(run.tuned), self._tuning_words(run)]
        words = [word for part in given for word in part]
        if method is None:
            pruning, words = ["--pruning", "null"], divided(words, "pruning")[1]
        else:
            pruning = method.arguments(run.cell.sparsity, run.seed)
        folder = self.folder(run)
        return [
            "fit",
            *(argument for config in self.configs for argument in ("--config", config)),
            *("--trainer.enable_progress_bar", "false"),
            *self._logger(folder),
            *pruning,
            *words,
            *("--seed_everything", str(run.seed)),
            *(("--data.seed", str(run.seed)) if self.seeds_data else ()),
            *path_words("--trainer.default_root_dir", folder),
            *(f"--trainer.callbacks+={_RECORDER}", *path_words("--trainer.callbacks.path", folder / METRICS)),
        ]

    def settings(self, run: Run) -> list[str]:
        """List what a fit is told beside what its name says; a table holds no runs of other settings."""
        digests = map(_digest, self.configs)
        method = self._method(run)
        seeded = ("--data.seed",) if self.seeds_data else ()
        words = [*self.overrides, *(method.pruning if method else ()), *self._tuning_words(run)]
        named = _named_files([*words, *arguments(run.cell.varied), *arguments(run.tuned)])
        return [*digests, *seeded, *words, *(_digest_of_file(path, path.stat().st_mtime_ns) for path in named)]

    def _tuning_words(self, run: Run) -> tuple[str, ...]:
        return self.tune_with if run.stage == "tune" else ()

    def _logger(self, folder: Path) -> list[str]:
        """Log into the folder itself, by which TensorBoard then names the run, unless a config has its own logger."""
        trainers = (read_config(config).get("trainer") for config in self.configs)
        if any(isinstance(trainer, Mapping) and trainer.get("logger") is not None for trainer in trainers):
            return []
        logger = ["--trainer.logger", "TensorBoardLogger", *path_words("--trainer.logger.save_dir", folder)]
        return [*logger, "--trainer.logger.name", "", "--trainer.logger.version", ""]

    def _method(self, run: Run) -> Method | None:
        return next((method for method in self.methods if method.name == run.cell.method), None)


def taken_by(row: str, axes: Sequence[Axis]) -> list[Axis]:
    """List the axes that mean something to a row."""
    return [axis for axis in axes if row != DENSE or not axis.of_pruning]


def _digest(config: str) -> str:
    """Digest a config's text, and the pruning section that it may take from another one."""
    pruning = json.dumps(read_config(config).get("pruning"))
    return hashlib.sha256(Path(config).read_bytes() + pruning.encode()).hexdigest()


def _named_files(words: Sequence[str]) -> list[Path]:
    """List the files that arguments name, whose content decides what a fit is, as in ``--model file.yaml``."""
    values = (word.partition("=")[2] if word.startswith("--") else word for word in words)
    return [Path(value) for value in values if value and is_file(value)]


@cache
def _digest_of_file(path: Path, changed: int) -> str:  # each run's settings ask for it, and a text may be large
    return hashlib.sha256(path.read_bytes()).hexdigest()
