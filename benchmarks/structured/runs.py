"""Runs in a CSV file, which a study adds to one by one, and the table that is made of them."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sparse_rnn.compare.statistics import mean_and_sd, paired_difference


@dataclass(frozen=True)
class Run:
    """One network, before and after it is trained further.

    Attributes:
        method: A name of :data:`methods.NAMES`, ``dense`` or ``from scratch``.
        units: Units of the layer, or those of the layer that has as many weights.
        seed: Of the network that it was made of, of what was drawn, and of the order of the samples.
        rate: Adam's learning rate at first.
        regularisation: λ, chosen on the held-out samples before any fine-tuning; 0 where nothing is reconstructed.
        weights: What is left of the layer's kernels.
        held_out_before: What is measured, on held-out samples, before fine-tuning.
        held_out: The same after it.
        test_before: On the test samples, before it.
        test: After it.
        seconds: All of that took.
    """

    method: str
    units: int
    seed: int
    rate: float
    regularisation: float
    weights: int
    held_out_before: float
    held_out: float
    test_before: float
    test: float
    seconds: float


def read(path: Path) -> list[Run]:
    """Return the runs of a file; none if there is no file yet."""
    if not path.exists():
        return []
    kinds = {field.name: field.type for field in fields(Run)}
    with path.open(newline="") as file:
        return [Run(**{name: kinds[name](value) for name, value in row.items()}) for row in csv.DictReader(file)]  # type: ignore[operator]  # kinds are classes


def add(path: Path, run: Run) -> None:
    """Add a run to a file."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Run)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(asdict(run))
    print(
        f"{run.method}, {run.units} units, seed {run.seed}, rate {run.rate:g}: "
        f"{run.held_out_before:.2f} then {run.held_out:.2f} held out, {run.seconds:.0f} s",
        flush=True,
    )


def chosen(runs: Sequence[Run]) -> dict[tuple[int, str], list[Run]]:
    """Group runs by units and method, each at the rate that is best for it on held-out samples, of most seeds."""
    groups: dict[tuple[int, str], dict[float, list[Run]]] = {}
    for run in runs:
        groups.setdefault((run.units, run.method), {}).setdefault(run.rate, []).append(run)
    return {
        which: min(rates.values(), key=lambda found: (-len(found), _mean(run.held_out for run in found)))
        for which, rates in groups.items()
    }


def table(runs: Sequence[Run], measure: str, reference: str, digits: int) -> Iterator[str]:
    """Return the lines of the tables, one for each size: test figures, mean and standard deviation over seeds.

    Args:
        runs: All runs.
        measure: What the figures are.
        reference: The method whose figure after fine-tuning is subtracted from that of each other, seed by seed.
        digits: Digits behind the point.
    """
    best = chosen(runs)
    for units in sorted({units for units, _ in best}, reverse=True):
        found = {method: runs for (own, method), runs in best.items() if own == units}
        against = {run.seed: run.test for run in found.get(reference, [])}
        yield f"\n{units} units, {measure} on test samples; paired difference to {reference!r}, with its 95 % interval"
        yield f"{'method':<38}{'weights':>9}{'rate':>8}{'before':>18}{'after':>18}   difference"
        for method, own in found.items():
            before, after = ([getattr(run, name) for run in own] for name in ("test_before", "test"))
            line = f"{method:<38}{own[0].weights:>9,}{own[0].rate:>8g}{_text(before, digits)}{_text(after, digits)}"
            gap = paired_difference({run.seed: run.test for run in own}, against)
            if method != reference and gap is not None:
                line += f"   {gap.mean:+.{digits}f}"
                line += "" if math.isnan(gap.low) else f" [{gap.low:+.{digits}f}, {gap.high:+.{digits}f}]"
            yield line


def _text(values: Sequence[float], digits: int) -> str:
    mean, sd = mean_and_sd(values)
    spread = "" if len(values) < 2 else f" ± {sd:.{digits}f}"
    return f"{f'{mean:.{digits}f}{spread}':>18}"


def _mean(values: Iterator[float]) -> float:
    return mean_and_sd(list(values))[0]
