"""One trained network made smaller by every method, before and after it is trained further: what both studies do."""

import argparse
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from methods import RECONSTRUCTED, Smaller, Task, recurrent_weights, smaller
from runs import Run, add, chosen, read, table
from torch import nn

from sparse_rnn import Masks

REFERENCE = "spectral" + RECONSTRUCTED


class Study(ABC):
    """A network and its data; a subclass says what they are.

    With seed 0 every learning rate is tried, and the other seeds get the one that was best on held-out samples. A
    network of a smaller size is also trained from scratch, for as many steps as the large one and its fine-tuning.

    Attributes:
        csv: Where the runs are.
        measure: What is measured; less is better.
        digits: Of it, behind the point.
        units: How many the large network has.
        sizes: How many are to stay.
        methods: Names of ways to fewer weights, of :data:`methods.NAMES`.
        steps: Of the large network's training, and of fine-tuning.
        dense_rate: The learning rate of the large network.
        scratch_rates: Those of networks that begin small.
        rates: Those of fine-tuning.
        regularisations: Values of λ.
    """

    csv: Path
    measure: str
    digits: int
    units: int
    sizes: Sequence[int]
    methods: Sequence[str]
    steps: tuple[int, int]
    dense_rate: float
    scratch_rates: Sequence[float]
    rates: Sequence[float]
    regularisations: Sequence[float]

    @abstractmethod
    def network(self, units: int) -> nn.Module:
        """Return an untrained network."""

    @abstractmethod
    def task(self, model: nn.Module, seed: int) -> Task:
        """Return what the methods may look at."""

    @abstractmethod
    def fit(self, model: nn.Module, steps: int, rate: float, seed: int, masks: Masks | None = None) -> None:
        """Train a network in place, the rate falling to 0 in a straight line."""

    @abstractmethod
    def held_out(self, model: nn.Module) -> float:
        """Measure on samples by which settings are chosen."""

    @abstractmethod
    def test(self, model: nn.Module) -> float:
        """Measure on samples that nothing is chosen by."""

    def missing(self, seeds: int) -> Iterator[tuple[int, str, int, list[float]]]:
        """Name the seeds, methods, sizes and rates that there is no run of yet."""
        rates = {"dense": (self.dense_rate,), "from scratch": self.scratch_rates}
        for seed in range(seeds):
            for method in ("dense", "from scratch", *self.methods):
                for units in self.sizes:
                    runs = read(self.csv)
                    wanted = rates.get(method, self.rates)
                    if seed > 0:
                        wanted = (chosen(runs)[units, method][0].rate,)
                    done = {run.rate for run in runs if (run.seed, run.method, run.units) == (seed, method, units)}
                    if todo := [rate for rate in wanted if rate not in done]:
                        yield seed, method, units, todo

    def make(self, seeds: int, folder: Path) -> None:
        """Make the runs that are missing."""
        for seed, method, units, rates in self.missing(seeds):
            for rate in rates:
                add(self.csv, self.run(method, units, seed, rate, folder))

    def run(self, method: str, units: int, seed: int, rate: float, folder: Path) -> Run:
        """Make a network smaller, and train it further."""
        start, strength = time.perf_counter(), 0.0
        if method == "from scratch":
            torch.manual_seed(seed)
            small, steps = Smaller(self.network(units)), sum(self.steps)
        elif method == "dense":
            small, steps = Smaller(self.dense(seed, folder)), 0
        else:
            task = self.task(self.dense(seed, folder), seed)
            strength, steps = self.regularisation(method, units, task), self.steps[1]
            small = smaller(method, task, units, strength)
        weights = recurrent_weights(small.model) if small.masks is None else small.masks.kept
        before = self.held_out(small.model), self.test(small.model)
        after = before
        if steps:
            self.fit(small.model, steps, rate, seed if method == "from scratch" else 1000 + seed, small.masks)
            after = self.held_out(small.model), self.test(small.model)
        seconds = time.perf_counter() - start
        return Run(method, units, seed, rate, strength, weights, before[0], after[0], before[1], after[1], seconds)

    def dense(self, seed: int, folder: Path) -> nn.Module:
        """Return the large network of a seed, which is trained once and kept in a file."""
        path = folder / f"{self.csv.stem}-{self.units}-seed{seed}.pt"
        torch.manual_seed(seed)
        model = self.network(self.units)
        if path.exists():
            model.load_state_dict(torch.load(path, weights_only=True))
        else:
            self.fit(model, self.steps[0], self.dense_rate, seed)
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), path)
        return model

    def regularisation(self, method: str, units: int, task: Task) -> float:
        """Return the λ that is best on held-out samples before any fine-tuning."""
        if not method.endswith(RECONSTRUCTED) or method.startswith("low rank"):
            return 0.0
        if len(self.regularisations) == 1:
            return self.regularisations[0]
        return min(self.regularisations, key=lambda value: self.held_out(smaller(method, task, units, value).model))


def main(study: Study, description: str) -> None:
    """Make the runs that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="run nothing, print the tables")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("compare/structured"), help="where large networks are kept")
    known = parser.parse_args()
    if not known.table:
        study.make(known.seeds, known.folder)
    print(*table(read(study.csv), study.measure, REFERENCE, study.digits), sep="\n")
