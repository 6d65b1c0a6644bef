"""What a comparison runs: its arguments, and the command line of each fit."""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import isabstract
from pathlib import Path

from sparse_rnn.cli.arguments import Parser
from sparse_rnn.compare.methods import Method, by_criterion, from_config
from sparse_rnn.config_files import find_config
from sparse_rnn.scores import Criterion
from sparse_rnn.sparsity.allocation import check_sparsity

DENSE = "dense"
METRICS = "metrics.json"
_RECORDER = "sparse_rnn.compare.recorder.MetricsRecorder"
_SET_BY_THE_GRID = {
    "--pruning": "--criteria or --methods",
    "--pruning.criterion": "--criteria or --methods",
    "--pruning.sparsity": "--sparsity",
    "--seed_everything": "--seeds",
    "--trainer.default_root_dir": "--output",
}


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
        """Every fit, seed by seed, so that a comparison that is stopped early has whole tables of fewer seeds."""
        cells = [(DENSE, 0.0), *((method.name, sparsity) for method in self.methods for sparsity in self.sparsities)]
        return [Run(name, sparsity, seed) for seed in range(self.seeds) for name, sparsity in cells]

    def folder(self, run: Run) -> Path:
        """Where a fit writes."""
        return self.output / str(run)

    def fit_arguments(self, run: Run) -> list[str]:
        """What follows ``python -m sparse_rnn`` in the command line of one fit."""
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
        """What a fit was told beside method, sparsity and seed; runs of other settings do not belong into the table."""
        digests = (hashlib.sha256(Path(config).read_bytes()).hexdigest() for config in self.configs)
        method = self._method(run)
        return [*digests, *self.overrides, *(method.pruning if method else ())]

    def _method(self, run: Run) -> Method | None:
        return next((method for method in self.methods if method.name == run.method), None)


def parse(args: Sequence[str]) -> Grid:
    """Read the command line.

    Args:
        args: What follows ``compare``.

    Returns:
        What to run.

    Raises:
        ValueError: If an argument is missing or cannot be used.
        FileNotFoundError: If a config is unknown.
        SystemExit: With status 0 after ``--help``.
    """
    known, overrides = _parser().parse_known_args(args)
    for sparsity in known.sparsity:
        check_sparsity(sparsity)
    for name in (override.partition("=")[0] for override in overrides):
        if name in _SET_BY_THE_GRID:
            raise ValueError(f"{name} is set by the comparison itself: use {_SET_BY_THE_GRID[name]}.")
    configs = tuple(find_config(config) for config in known.config)
    return Grid(
        configs=configs,
        methods=_methods(known.criteria, known.methods, configs[0]),
        sparsities=known.sparsity,
        seeds=known.seeds,
        output=known.output or Path("compare", "+".join(Path(config).stem for config in known.config)),
        jobs=known.jobs,
        overrides=tuple(overrides),
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m sparse_rnn compare",
        description="Fit the dense network and the network pruned by each criterion or method to each sparsity, for "
        "several seeds, each in a process and a folder of its own; print the validation error (val/error, or where a "
        "model logs none val/ppl, or val/loss) as mean ± standard deviation over the seeds and the mean seconds of a "
        "fit, and write it as results.csv, results.md and results.png. Started again, it runs only what has not "
        "finished.",
        epilog="Every other argument, such as --trainer.max_epochs 5, is handed to every fit (see python -m sparse_rnn "
        "fit --help); the dense network takes none that begins with --pruning.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-c", "--config", action="append", required=True, help="config of the fits; later ones override earlier ones")
    add("--criteria", type=_criteria, default=(), help="criteria of one-shot pruning, as in JacobianSpectrum,Random")
    add("--methods", type=_names, default=(), help="configs whose pruning section to take, as in gru_mnist_rigl.yaml")
    add("--sparsity", type=_sparsities, required=True, help="shares of the weights to remove, as in 0.9,0.95")
    add("--seeds", type=_count, default=3, help="number of seeds, from 0 on (default: 3)")
    add("--output", type=Path, help="folder of the runs and the results (default: compare/<name of the config>)")
    add("--jobs", type=_count, default=1, help="fits at the same time, which share the CPU's threads (default: 1)")
    return parser


def _methods(criteria: Sequence[str], configs: Sequence[str], base: str) -> tuple[Method, ...]:
    methods = [*map(by_criterion, criteria), *(from_config(config, base) for config in configs)]
    if not methods:
        raise ValueError("There is nothing to compare: give --criteria, --methods or both.")
    names = [DENSE, *(method.name for method in methods)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Two rows of the table would be called {name!r}: rename one of the configs.")
    return tuple(methods)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))


def _criteria(text: str) -> tuple[str, ...]:
    known = sorted(criterion.__name__ for criterion in _subclasses(Criterion) if not isabstract(criterion))
    names = _names(text)
    for name in names:
        if "." not in name and name not in known:
            raise argparse.ArgumentTypeError(
                f"there is no criterion {name!r}; choose from {', '.join(known)}, or give an import path"
            )
    return names


def _subclasses(parent: type) -> list[type]:
    children: list[type] = parent.__subclasses__()
    return children + [found for child in children for found in _subclasses(child)]


def _sparsities(text: str) -> tuple[float, ...]:
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"give numbers separated by commas, as in 0.9,0.95, not {text!r}") from None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"give a whole number from 1 on, not {text!r}")
    return int(text)


def _without_pruning(overrides: Sequence[str]) -> list[str]:
    """Without ``--pruning.x=1`` and ``--pruning.x 1``."""
    kept: list[str] = []
    dropping = False
    for argument in overrides:
        if argument.startswith("--"):
            dropping = argument.startswith("--pruning.")
        if not dropping:
            kept.append(argument)
    return kept
