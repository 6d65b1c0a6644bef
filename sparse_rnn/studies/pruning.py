"""The pruning study: trained networks at each sparsity, right after pruning and while they are retrained."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from sparse_rnn.compare.axes import Axis, parse_axis
from sparse_rnn.compare.cells import last_values
from sparse_rnn.compare.grid import DENSE, Cell, Grid, Run
from sparse_rnn.compare.methods import Method, by_criterion
from sparse_rnn.compare.results import Result, by_seed, metric
from sparse_rnn.compare.runner import check_settings, finished, run_all
from sparse_rnn.compare.words import path_words

SCOPES = {"both": None, "input-to-hidden": ["*weight_ih*"], "hidden-to-hidden": ["*weight_[hc]h*"]}
"""What is pruned, and the patterns of the names of those kernels; the cell-to-gate kernels of a peephole LSTM read the
state too."""

CELLS = "model={cell: rnn, nonlinearity: tanh},{cell: rnn, nonlinearity: relu},{cell: lstm},{cell: gru}"
SPARSITIES = tuple(step / 10 for step in range(1, 11))

_ALL = 1 - 1e-9  # of fewer than 5 · 10^8 weights none is left, and a sparsity of 1 is no sparsity
_POINT, _PERCENT = 1.0, 1.01
_WEIGHTS = "weights.pt"
_HERE = "sparse_rnn.studies.weights"


@dataclass(frozen=True)
class PruningStudy(Grid):
    """A comparison whose methods are scopes, and whose pruned networks start from the trained ones of their seed.

    Args:
        epochs: How long a pruned network is retrained.
    """

    epochs: int = 10

    @property
    def scopes(self) -> list[str]:
        """What is pruned, in the order of the tables."""
        return [method.name for method in self.methods]

    def fit_arguments(self, run: Run) -> list[str]:
        """List what follows ``python -m sparse_rnn`` in the command line of one fit."""
        arguments = super().fit_arguments(run)
        if run.cell.method == DENSE:
            return [*arguments, f"--trainer.callbacks+={_HERE}.KeepWeights", *self._weights(run)]
        trained = Run(self.cell(DENSE, 0.0, run.cell.varied), run.seed)
        start = (f"--trainer.callbacks+={_HERE}.StartFrom", *self._weights(trained))
        return [*arguments, "--trainer.max_epochs", str(self.epochs), *start]

    def settings(self, run: Run) -> list[str]:
        """List what a fit is told beside what its name says."""
        retraining = () if run.cell.method == DENSE else ("--trainer.max_epochs", str(self.epochs))
        return [*super().settings(run), *retraining]

    def _weights(self, run: Run) -> tuple[str, str]:
        return path_words("--trainer.callbacks.path", self.folder(run) / _WEIGHTS)


@dataclass(frozen=True)
class Scope(Method):
    """A set of kernels that is pruned in one shot, with one threshold for all of them."""

    def arguments(self, sparsity: float, seed: int) -> list[str]:
        """List the arguments of ``fit`` for one run; at sparsity 1 no weight is left."""
        return super().arguments(min(sparsity, _ALL), seed)


def scope(name: str, criterion: str) -> Scope:
    """Prune one of :data:`SCOPES` by a criterion: the name of its class, its short name, or its import path.

    Example:
        >>> scope("hidden-to-hidden", "magnitude").pruning[-2:]
        ('--pruning.kernels', '["*weight_[hc]h*"]')
    """
    # null first: otherwise what the config says of the same class would stay in force.
    pruning = ("--pruning", "null", *by_criterion(criterion).pruning, "--pruning.allocation", "global")
    return Scope(name, (*pruning, "--pruning.kernels", json.dumps(SCOPES[name])))


def run_missing(study: PruningStudy) -> list[str]:
    """Run what is not finished, the networks to prune first, with a progress bar on stderr.

    Args:
        study: The study.

    Returns:
        A line for each run that failed; one whose network was not trained fails, too.

    Raises:
        UsageError: If finished runs had other settings than the study.
        KeyboardInterrupt: If the user stopped it; no child is left running.
    """
    done, runs = finished(study), study.runs()
    check_settings(study, done)
    trained = [run for run in runs if run.cell.method == DENSE]
    with tqdm(total=len(runs), initial=len(done), desc="study", unit="run") as bar:
        failed = run_all(study, trained, bar)
        return [*failed, *run_all(study, [run for run in runs if run not in trained], bar)]


def after(results: Sequence[Result], cell: Cell, epoch: int) -> dict[int, float]:
    """Return the values after an epoch of retraining, by seed; after epoch 0 is right after pruning."""
    name = metric(results)
    values: dict[int, float] = {}
    for seed, result in by_seed(results, cell).items():
        epochs, curve = result.curve(name)
        if epoch in epochs:
            values[seed] = curve[epochs.index(epoch)]
    return values


def epochs_to_recover(results: Sequence[Result], study: PruningStudy, cell: Cell) -> dict[int, int | None]:
    """Count, by seed, the epochs of retraining until a network is as good as the one that was pruned.

    As good is an error at most one point larger, or a perplexity or loss at most one percent larger.

    Returns:
        Seed to epochs, 0 where pruning alone did no harm; None where it was not reached.
    """
    trained = last_values(results, study.cell(DENSE, 0.0, cell.varied))
    found: dict[int, int | None] = {}
    for seed in by_seed(results, cell):
        if seed in trained:
            enough = trained[seed] + _POINT if metric(results) == "val/error" else trained[seed] * _PERCENT
            curve = ((epoch, after(results, cell, epoch).get(seed)) for epoch in range(study.epochs + 1))
            found[seed] = next((epoch for epoch, value in curve if value is not None and value <= enough), None)
    return found


def four_cells() -> Axis:
    """Return the axis of the four cells of arXiv 2407.20601: tanh, relu, LSTM and GRU."""
    return parse_axis(CELLS)


def default_output(configs: Sequence[str]) -> Path:
    """Name the folder of a study of some configs.

    Example:
        >>> default_output(["reber.yaml"]).as_posix()
        'study/pruning/reber'
    """
    return Path("study", "pruning", "+".join(Path(config).stem for config in configs))
