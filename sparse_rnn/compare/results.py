"""What finished runs reached."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sparse_rnn.compare.grid import Cell, Grid, Run
from sparse_rnn.errors import UsageError
from sparse_rnn.writing import written_whole

COMPARED = {"val/error": 2, "val/ppl": 2, "val/loss": 4}  # by what runs are compared, and its decimals; the best first
RESULT = "result.json"
SPARSITY = "sparsity/all"  # in a history, by the name that pruning callbacks give it in logs


@dataclass(frozen=True)
class Result:
    """What a finished run reached.

    Args:
        run: Which one.
        metrics: Name to value, as logged last.
        seconds: Wall time of the fit, without imports.
        settings: What `Grid.settings` was.
        made_by: Commit, versions and machine.
        validated: The step that the metrics are of.
        checkpoint: Where the last model is.
        history: What each validation gave: epochs and steps so far, the metrics, and how sparse a pruned network was.
        asked: The metric that this comparison is to go by, which no file holds; None for the best that all runs have.
    """

    run: Run
    metrics: dict[str, float]
    seconds: float
    settings: list[str]
    made_by: str
    validated: int = 0
    checkpoint: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    asked: str | None = None

    def curve(self, metric: str) -> tuple[list[float], list[float]]:
        """Return the epochs after which a metric was validated, and its values."""
        seen = [(at["epoch"], at[metric]) for at in self.history if metric in at]
        return [epoch for epoch, _ in seen], [value for _, value in seen]

    @property
    def sparsity(self) -> float | None:
        """How sparse the network of the last validation was; None where it is not known, or not pruned."""
        return self.history[-1].get(SPARSITY) if self.history else None

    def best(self, metric: str) -> tuple[float, float]:
        """Return the smallest value of a metric, and the epochs that it was reached after.

        Networks count that are as sparse as that of the last validation: one from before may well be better. Of a run
        of an earlier version, whose history holds no sparsity, all count.
        """
        final = self.sparsity or 0.0
        seen = [(at[metric], at["epoch"]) for at in self.history if metric in at and at.get(SPARSITY, 0.0) >= final]
        return min(seen, key=lambda pair: _or_inf(pair[0]), default=(math.nan, math.nan))

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        values = asdict(self)
        del values["asked"]
        with written_whole(folder / RESULT) as unfinished:
            unfinished.write_text(json.dumps(values, indent=1), encoding="utf-8")


def read_result(folder: Path) -> Result | None:
    """Read the result of a finished run; None where it is not finished.

    Raises:
        UsageError: If another version has written it, or it is not whole.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UsageError(f"{path} is not whole: delete {folder}, and that run is made again.") from None
    try:
        return Result(**values | {"run": _run(**values["run"])})
    except (KeyError, TypeError):
        raise UsageError(f"{path} was written by another version: give another --output, or delete it.") from None


def is_validated(name: str) -> bool:
    """Tell by its name whether a metric may be one that a validation logs.

    Example:
        >>> is_validated("val_loss"), is_validated("train/ppl_sample"), is_validated("train/loss")
        (True, True, False)
    """
    return name == "train/ppl_sample" or not name.startswith("train/")


def by(result: Result, asked: str | None) -> Result:
    """Return a result to be compared by a metric.

    Raises:
        UsageError: If the run has not logged it, or it is of training.
    """
    if asked is not None and asked not in result.metrics:
        raise UsageError(f"--metric {asked}: {result.run} has logged none, but {_names(result)}.")
    if asked is not None and not is_validated(asked):
        raise UsageError(f"--metric {asked}: it is no figure of a validation; give one that validation logs.")
    return replace(result, asked=asked)


def metric(results: Sequence[Result]) -> str:
    """Choose what to compare by: what was asked for, else ``val/error``, ``val/ppl``, ``val/loss``, which all log."""
    if results and results[0].asked is not None:
        return results[0].asked
    for name in COMPARED:
        if all(name in result.metrics for result in results):
            return name
    raise UsageError(
        f"The fits log none of {', '.join(COMPARED)} in common ({results[-1].run} logs {_names(results[-1])}): give "
        "--metric, one that all of them log."
    )


def with_unit(name: str) -> str:
    """Name a metric with its unit: errors are percentages.

    Example:
        >>> with_unit("val/error"), with_unit("val/ppl")
        ('val/error (%)', 'val/ppl')
    """
    return f"{name} (%)" if name.endswith("error") else name


def decimals_of(name: str) -> int:
    """Return to how many decimals a metric is given."""
    return COMPARED.get(name, 2 if "ppl" in name else 4)


def seeds_of(results: Sequence[Result], grid: Grid) -> str:
    """Name the seeds that are reported, and say where not all of their runs are finished."""
    named = "seed 0" if grid.seeds == 1 else f"seeds 0 to {grid.seeds - 1}"
    done, total = progress(results, grid)
    return named if done == total else f"the finished runs of {named}"


def progress(results: Sequence[Result], grid: Grid) -> tuple[int, int]:
    """Count the runs to report that are finished, and all of them."""
    return sum(result.run.stage == "final" for result in results), grid.seeds * len(grid.cells())


def by_seed(results: Sequence[Result], cell: Cell) -> dict[int, Result]:
    """Return the runs of a cell that are to be reported, by their seeds."""
    return {r.run.seed: r for r in results if r.run.cell == cell and r.run.stage == "final"}


def loss_of(result: Result, metric: str) -> float:
    """Return the last value of a metric, infinite where the run has diverged: what is tuned is to make it small."""
    return _or_inf(result.metrics[metric])


def _names(result: Result) -> str:
    return ", ".join(result.metrics) or "nothing"


def _or_inf(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _run(cell: dict[str, Any], tuned: list[list[str]], **others: Any) -> Run:
    return Run(Cell(**cell | {"varied": _point(cell["varied"])}), tuned=_point(tuned), **others)


def _point(pairs: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in pairs)
