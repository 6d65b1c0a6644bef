"""What else might beat a random mask: starts, allocations, rates, moving masks; GRU on sequential MNIST, 95 %.

Every run that candidates.csv lacks is made and added; stopped, the same command goes on. The table compares each
candidate with another one, at its best rate, seed by seed. One thread is as fast as more:

    OMP_NUM_THREADS=1 python benchmarks/recipe/candidates.py [--only "set*"] [--table] [--against random] [--csv FILE]

Runs of the same settings are the same bit for bit on one machine and version of torch. The recipe itself, by fit, is in
mnist.sh.
"""

import argparse
import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from training import Figures, Settings, mnist, train

from sparse_rnn.compare.statistics import mean_and_sd, paired_difference

CSV = Path(__file__).parent / "candidates.csv"
COLUMNS = ["candidate", "seed", *(field.name for field in (*fields(Figures), *fields(Settings)))]

ALL, TWO, ONE = (0, 1, 2), (0, 1), (0,)


def moved(every: int, drop: float = 0.5, **more: Any) -> dict[str, Any]:
    return {"move": {"drop": drop, "every": every, **more}}


def removed(end: float) -> dict[str, Any]:
    """Prune by magnitude, in the shape of Zhu and Gupta's cubic, until a share of the training is over."""
    return {"remove": {"begin": 0.0, "end": end, "frequency": 20}, "allocation": "global"}


def after(steps: int, allocation: str = "global") -> dict[str, Any]:
    """Prune at once after so many dense steps."""
    return {"remove": {"begin": steps, "end": steps, "frequency": 1}, "allocation": allocation}


FIRST_EPOCH = removed(0.2)
RIGL = moved(100, 0.3, growth="gradient")
GRANET = moved(100, 0.3, growth="gradient", throughout=True)
GATE = {"redistribution": "gate"}
BIAS = {"update_bias": 1.0}
CANDIDATE_2X = {"allocation": {"*": {"n": 0.1}}}
SHUFFLED = {"shuffle": True}
HALF, INPUTS_TOO = {"dropout": 0.5}, {"input_dropout": 0.1}
GRU_400 = {"units": 400, "epochs": 4}
OF_FIRST_EPOCH = {
    "*weight_ih*": {"r": 0.058, "z": 0.098, "n": 0.056},
    "*weight_hh*": {"r": 0.044, "z": 0.055},
}

# Name, settings, then rate: seeds.
Plan = list[tuple[str, dict[str, Any], dict[float, Sequence[int]]]]

# One-shot criteria, which rank all kernels together, as in the paper.
ONE_SHOT: dict[str, dict[str, Any]] = {
    "Jacobian, author": {"criterion": ["JacobianSpectrum", {"variant": "author"}], "allocation": "global"},
    "Jacobian, paper": {"criterion": ["JacobianSpectrum", {"variant": "paper"}], "allocation": "global"},
    "SNIP": {"criterion": "SNIP", "allocation": "global"},
    "magnitude": {"criterion": "Magnitude", "allocation": "global"},
}
TRIED_ONCE: dict[str, dict[str, Any]] = {
    "Jacobian, author, 16 draws": {
        "criterion": ["JacobianSpectrum", {"variant": "author", "draws": 16}],
        "allocation": "global",
    },
    "Jacobian, paper, biases 0.1": {
        "criterion": ["JacobianSpectrum", {"variant": "paper", "biases": 0.1}],
        "allocation": "global",
    },
    "SNIP with γ": {"criterion": ["SNIP", {"gamma": "sequence"}], "allocation": "global"},
    "ProsPr": {"criterion": "ProsPr", "allocation": "global"},
    "ProsPr, steps of 1": {"criterion": ["ProsPr", {"rate": 1.0}], "allocation": "global"},
    "PHEW": {"criterion": "PHEW", "allocation": "global"},
}
SCORED: Plan = [
    ("random", {}, {0.01: ALL, 0.03: ALL}),
    *((name, how, {0.01: ONE, 0.02: ALL, 0.03: ALL}) for name, how in ONE_SHOT.items()),
    *((name, how, {0.01: ONE, 0.02: ONE}) for name, how in TRIED_ONCE.items()),
    ("random", GRU_400, {0.01: ALL, 0.02: ALL}),
    *((name, GRU_400 | how, {0.01: ALL, 0.02: ALL}) for name, how in ONE_SHOT.items()),
    *((f"{name}, shuffled", how | SHUFFLED, {0.02: ALL, 0.03: ALL}) for name, how in ONE_SHOT.items()),
]

MOVING: Plan = [
    ("RigL", RIGL, {0.02: ALL}),
    ("RigL, bias 1", RIGL | BIAS, {0.02: ALL}),
    ("RigL 50", moved(50, 0.3, growth="gradient"), {0.02: TWO}),
    ("RigL within gates", {"move": RIGL["move"] | GATE}, {0.02: TWO}),
    ("RigL from candidate gate 2x", RIGL | CANDIDATE_2X, {0.01: ALL, 0.02: ALL}),
    ("RigL from Jacobian, author", RIGL | ONE_SHOT["Jacobian, author"], {0.01: ALL, 0.02: ALL}),
    ("RigL from Jacobian, author, shuffled", RIGL | ONE_SHOT["Jacobian, author"] | SHUFFLED, {0.01: ALL, 0.02: ALL}),
    ("RigL from SNIP", RIGL | ONE_SHOT["SNIP"], {0.02: ALL}),
    ("RigL from magnitude", RIGL | ONE_SHOT["magnitude"], {0.02: ALL}),
    ("SET 50 from candidate gate 2x", moved(50) | CANDIDATE_2X, {0.02: ALL}),
    ("SET 50 from Jacobian, author, shuffled", moved(50) | ONE_SHOT["Jacobian, author"] | SHUFFLED, {0.02: ALL}),
    ("RigL, second moments filled", {**RIGL, "fill": True}, {0.02: TWO}),
    ("SET 20", moved(20), {0.02: ONE}),
    ("SET 50", moved(50), {0.02: ALL}),
    ("SET 50, drop 0.8", moved(50, 0.8), {0.02: ONE}),
    ("SET 100", moved(100), {0.02: ONE}),
    ("SET 200", moved(200), {0.02: TWO}),
    ("SET 400", moved(400), {0.02: ONE}),
]

STATIC: Plan = [
    ("random", {}, {0.01: ONE, 0.02: ALL}),
    ("bias 1", BIAS, {0.02: ALL}),
    ("candidate gate 2x", CANDIDATE_2X, {0.02: ALL, 0.03: ALL}),
    ("chrono bias", {"update_bias": "chrono"}, {0.02: ALL}),
    ("input kernel 2x", {"allocation": {"*weight_ih*": 0.1}}, {0.02: ONE}),
    ("inputs by deviation", {"criterion": "std"}, {0.02: ONE}),
    ("random, allocation of the first epoch", {"allocation": OF_FIRST_EPOCH}, {0.02: ONE}),
    ("diagonal", {"keep_diagonal": True}, {0.02: ONE}),
    ("Givens", {"givens": 0.05}, {0.02: ONE}),
    ("clip 0.25", {"clip": 0.25}, {0.02: ONE}),
    ("cosine decay", {"decay": "cosine"}, {0.02: ONE}),
    ("rescale", {"rescale": True}, {0.02: ONE}),
    ("rescale chi", {"rescale": "chi"}, {0.02: ONE}),
    ("SμPar", {"kernel_rate": 1.0}, {0.001: ONE}),
    ("SμPar, square root", {"kernel_rate": 0.5}, {0.003: ONE, 0.01: ONE}),
    ("betas 0.9, 0.99", {"betas": [0.9, 0.99]}, {0.02: ONE}),
    ("clip 5", {"clip": 5.0}, {0.02: ONE}),
    ("orthogonal", {"init": "orthogonal"}, {0.02: ONE}),
    ("glorot", {"init": "glorot"}, {0.02: ONE}),
    ("no clipping", {"clip": None}, {0.02: ONE}),
]

DENSE_AT_FIRST: Plan = [
    ("dense", {"sparsity": 0.0}, {0.003: ONE, 0.01: ONE}),
    ("first epoch", FIRST_EPOCH, {0.01: TWO, 0.02: ALL}),
    ("first epoch, bias 1", FIRST_EPOCH | BIAS, {0.02: ALL, 0.03: ALL}),
    ("first epoch, RigL", FIRST_EPOCH | RIGL, {0.02: ALL}),
    ("first epoch, bias 1, RigL", FIRST_EPOCH | RIGL | BIAS, {0.02: ALL}),
    ("first epoch, orthogonal", FIRST_EPOCH | {"init": "orthogonal"}, {0.02: ALL}),
    ("first epoch, orthogonal, bias 1, RigL", FIRST_EPOCH | {"init": "orthogonal"} | RIGL | BIAS, {0.02: ALL}),
    ("first epoch, GraNet, bias 1", FIRST_EPOCH | GRANET | BIAS, {0.01: ALL, 0.02: ALL}),
    (
        "first epoch, bias 1, RigL, dropout 0.5, inputs 0.1",
        FIRST_EPOCH | RIGL | BIAS | HALF | INPUTS_TOO,
        {0.01: ALL, 0.02: ALL},
    ),
    ("first epoch, RigL within gates", {**FIRST_EPOCH, "move": RIGL["move"] | GATE}, {0.02: TWO}),
    ("first epoch, SET 50", FIRST_EPOCH | moved(50), {0.02: ONE}),
    ("first epoch, SET 200", FIRST_EPOCH | moved(200), {0.02: TWO}),
    ("first epoch, clip 0.25", FIRST_EPOCH | {"clip": 0.25}, {0.02: TWO}),
    ("first half of the first epoch", removed(0.1), {0.02: TWO}),
    ("after 500, per gate", after(500, "per_gate"), {0.02: ONE}),
    ("after 300, per gate", after(300, "per_gate"), {0.02: ONE}),
    ("after 300", after(300), {0.01: ONE, 0.02: ONE}),
    ("after 100, per gate", after(100, "per_gate"), {0.02: ONE}),
]

ORTHOGONAL = {"init": "orthogonal"}
GRU_400_FIRST_EPOCH = GRU_400 | removed(0.25)
LARGE: Plan = [
    ("first epoch, orthogonal", GRU_400_FIRST_EPOCH | ORTHOGONAL, {0.01: ALL}),
    ("first epoch, orthogonal, bias 1, RigL", GRU_400_FIRST_EPOCH | ORTHOGONAL | RIGL | BIAS, {0.01: ALL}),
    ("first epoch, bias 1, RigL", GRU_400_FIRST_EPOCH | RIGL | BIAS, {0.01: ALL}),
    ("first epoch, GraNet, bias 1", GRU_400_FIRST_EPOCH | GRANET | BIAS, {0.01: ALL}),
    ("first epoch", GRU_400_FIRST_EPOCH, {0.005: ONE, 0.01: ALL}),
    ("first epoch, RigL", GRU_400_FIRST_EPOCH | RIGL, {0.01: ONE}),
    ("first epoch, bias 1", GRU_400_FIRST_EPOCH | BIAS, {0.005: ONE, 0.01: ALL, 0.02: ALL}),
    ("RigL, bias 1", GRU_400 | RIGL | BIAS, {0.01: ONE}),
    ("first epoch, glorot", GRU_400_FIRST_EPOCH | {"init": "glorot"}, {0.01: ONE}),
    ("SET 50", GRU_400 | moved(50), {0.01: ONE}),
    ("SET 200", GRU_400 | moved(200), {0.005: ONE, 0.01: ALL}),
    ("RigL", GRU_400 | RIGL, {0.01: ONE}),
    ("random", GRU_400, {0.005: ONE, 0.01: ONE, 0.02: ONE}),
    ("dense", GRU_400 | {"sparsity": 0.0}, {0.003: ONE}),
]

TEN = tuple(range(10))
# What the parts of the recipe are worth, at its rate.
ABLATED: Plan = [
    ("first epoch", FIRST_EPOCH, {0.01: TEN}),
    ("first epoch, bias 1", FIRST_EPOCH | BIAS, {0.01: TEN}),
    ("first epoch, bias 1, no clipping", FIRST_EPOCH | BIAS | {"clip": None}, {0.01: TEN}),
    ("first epoch", GRU_400_FIRST_EPOCH, {0.01: TEN}),
    ("first epoch, bias 1", GRU_400_FIRST_EPOCH | BIAS, {0.01: TEN}),
]

FIFTY = {"epochs": 50}
# 95 % within the first of fifty epochs; decaying weights, dropping some of the state or inputs, smoothing labels: all
# against overfitting.
FIRST_OF_FIFTY = FIFTY | removed(0.02) | BIAS
FIRST_FIFTH_OF_FIFTY = FIFTY | removed(0.2) | BIAS
LONG: Plan = [
    ("first epoch, bias 1", FIRST_OF_FIFTY, {0.003: ONE, 0.01: ONE}),
    ("first epoch, bias 1, decay 0.1", FIRST_OF_FIFTY | {"weight_decay": 0.1}, {0.003: ONE, 0.01: ONE}),
    ("first epoch, bias 1, dropout 0.2", FIRST_OF_FIFTY | {"dropout": 0.2}, {0.01: ONE}),
    ("first epoch, bias 1, RigL", FIRST_OF_FIFTY | RIGL, {0.01: ONE}),
    ("first epoch, bias 1, RigL, dropout 0.2", FIRST_OF_FIFTY | RIGL | {"dropout": 0.2}, {0.01: ONE}),
    ("first epoch, bias 1, RigL, dropout 0.5", FIRST_OF_FIFTY | RIGL | HALF, {0.01: ALL}),
    (
        "first epoch, bias 1, RigL, dropout 0.5, smoothing 0.1",
        FIRST_OF_FIFTY | RIGL | HALF | {"smoothing": 0.1},
        {0.01: ONE},
    ),
    ("first epoch, bias 1, RigL, dropout 0.5, inputs 0.1", FIRST_OF_FIFTY | RIGL | HALF | INPUTS_TOO, {0.01: ALL}),
    (
        "first epoch, bias 1, RigL, dropout 0.5, inputs 0.2",
        FIRST_OF_FIFTY | RIGL | HALF | {"input_dropout": 0.2},
        {0.01: ONE},
    ),
    ("first epoch, GraNet, bias 1, dropout 0.5, inputs 0.1", FIRST_OF_FIFTY | GRANET | HALF | INPUTS_TOO, {0.01: ONE}),
    (
        "first epoch, GraNet, bias 1, dropout 0.5, inputs 0.1",
        FIRST_OF_FIFTY | GRANET | HALF | INPUTS_TOO | {"units": 400},
        {0.003: ONE, 0.005: ONE},
    ),
    ("first epoch, bias 1, dropout 0.5, inputs 0.1", FIRST_OF_FIFTY | HALF | INPUTS_TOO, {0.01: ONE}),
    ("first fifth, bias 1, RigL, dropout 0.5", FIRST_FIFTH_OF_FIFTY | RIGL | HALF, {0.01: ONE}),
    ("random", FIFTY, {0.01: ONE}),
    ("dense", FIFTY | {"sparsity": 0.0}, {0.003: ONE}),
]


@dataclass(frozen=True)
class Candidate:
    """Settings under a name, and the seeds they are tried with."""

    name: str
    settings: Settings
    seeds: Sequence[int]

    @property
    def key(self) -> str:
        return key(asdict(self.settings))


def key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            {name: value if name == "candidate" else json.loads(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def add(path: Path, row: Row) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({name: value if name == "candidate" else json.dumps(value) for name, value in row.items()})


def of_row(row: Row) -> str:
    return key({field.name: row[field.name] for field in fields(Settings)})


def missing(candidates: Sequence[Candidate], rows: Sequence[Row]) -> Iterator[tuple[Candidate, int]]:
    done = {(of_row(row), row["seed"]) for row in rows}
    for candidate in candidates:
        for seed in candidate.seeds:
            if (candidate.key, seed) not in done:
                yield candidate, seed


def planned(only: str) -> list[Candidate]:
    return [
        Candidate(name, Settings(lr=lr, **settings), seeds)
        for name, settings, rates in SCORED + MOVING + STATIC + DENSE_AT_FIRST + LARGE + ABLATED + LONG
        for lr, seeds in rates.items()
        if fnmatchcase(name, only)
    ]


@dataclass(frozen=True)
class Result:
    """A candidate's runs."""

    name: str
    size: tuple[int, int]
    lr: float
    errors: Mapping[int, float]

    @property
    def mean(self) -> float:
        return mean_and_sd(list(self.errors.values()))[0]


def results(rows: Sequence[Row]) -> list[Result]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(of_row(row), []).append(row)
    found = [
        Result(
            runs[0]["candidate"],
            (runs[0]["units"], runs[0]["epochs"]),
            runs[0]["lr"],
            {run["seed"]: run["error"] for run in sorted(runs, key=lambda run: run["seed"])},
        )
        for runs in groups.values()
    ]
    return sorted(found, key=lambda result: (result.size, result.mean))


def reference(found: Sequence[Result], name: str, size: tuple[int, int]) -> Result | None:
    """Return the result of a name at its best rate: that of the most seeds, then that of the lowest error."""
    named = [result for result in found if result.name == name and result.size == size]
    return min(named, key=lambda result: (-len(result.errors), result.mean), default=None)


def line(result: Result, against: Result | None) -> str:
    mean, sd = mean_and_sd(list(result.errors.values()))
    seeds = " ".join(f"{error:.2f}" for error in result.errors.values())
    text = f"{result.name:<40}{result.lr:>7g}{mean:>7.2f} ± {sd:<5.2f}{len(result.errors):>3}  {seeds:<16} "
    difference = None if against in (None, result) else paired_difference(result.errors, against.errors)
    if difference is None:
        return text.rstrip()
    interval = "" if math.isnan(difference.low) else f" [{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"{text}{difference.mean:+.2f}{interval}"


def table(rows: Sequence[Row], against: str) -> Iterator[str]:
    found = results(rows)
    for size in sorted({result.size for result in found}):
        other = reference(found, against, size)
        yield ""
        yield f"GRU-{size[0]}, {size[1]} epochs: error in %, difference to {against!r}, paired, with its 95 % interval"
        yield f"{'candidate':<40}{'rate':>7}{'mean ± sd':>13}{'n':>5}  {'seed by seed':<16}difference"
        yield from (line(result, other) for result in found if result.size == size)


def make(todo: Sequence[tuple[Candidate, int]], path: Path) -> None:
    """Train, and add what comes of it to a file, run by run."""
    splits = mnist()
    for candidate, seed in todo:
        figures = asdict(train(candidate.settings, seed, splits))
        add(path, {"candidate": candidate.name, "seed": seed, **figures, **asdict(candidate.settings)})
        print(f"{candidate.name}, rate {candidate.settings.lr:g}, seed {seed}: {figures['error']:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="shell-style pattern of the names to run")
    parser.add_argument("--runs", type=int, help="stop after so many (default: all)")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table")
    parser.add_argument("--against", default="random", help="the candidate that the others are compared with")
    parser.add_argument("--csv", type=Path, default=CSV)
    known = parser.parse_args()
    todo = list(missing(planned(known.only), read(known.csv)))[: known.runs]
    if todo and not known.table:
        make(todo, known.csv)
    print(*table(read(known.csv), known.against), sep="\n")


if __name__ == "__main__":
    main()
