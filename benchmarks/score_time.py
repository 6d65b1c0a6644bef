"""Time and peak memory of scoring, beside the gradient of a loss and a training step.

Table 6 of Zhang and Stadie (2020) on this machine: every criterion scores a GRU-400 on 64 sequences of 28x28, in turn,
in one process; medians of the ratios to SNIP in the same turn are printed. SNIP without gamma is one forward and one
backward pass of the model through PyTorch's fused GRU. Peak memory is what a process of its own grows by while it does
the work once; for an LSTM-2000 (64 sequences of 20x400) it is printed beside that of a training step with Adam.

    python benchmarks/score_time.py [--units 400] [--repeats 20]
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from machine import describe
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sparse_rnn import SNIP, Criterion, GraSP, JacobianSpectrum
from sparse_rnn.recurrent.kernels import find_targets

SAMPLES, CLASSES = 64, 10

CRITERIA: dict[str, Criterion] = {
    "SNIP": SNIP(),
    "SNIP / gamma": SNIP(gamma="sequence"),
    "GraSP": GraSP(),
    "GraSP / gamma": GraSP(gamma="sequence"),
    "Jacobian, last step": JacobianSpectrum(horizon=1, gamma="none"),
    "Jacobian, last step / gamma": JacobianSpectrum(horizon=1),
    "Jacobian, last 4": JacobianSpectrum(gamma="none"),
    "Jacobian, last 4 / gamma": JacobianSpectrum(),
    "Jacobian, exact / gamma": JacobianSpectrum(projection="exact"),
}

Batch = tuple[Tensor, Tensor]


class Classifier(nn.Module):
    """Recurrent layer and output layer, as in sequential MNIST."""

    def __init__(self, layer: type[nn.Module], inputs: int, units: int) -> None:
        super().__init__()
        self.rnn = layer(inputs, units, batch_first=True)
        self.head = nn.Linear(units, CLASSES)
        for parameter in self.rnn.parameters():
            nn.init.normal_(parameter, 0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def loss(model: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    return cross_entropy(model(x), y)


def build(layer: type[nn.Module], steps: int, inputs: int, units: int) -> tuple[Classifier, Batch]:
    torch.manual_seed(0)
    batch = torch.rand(SAMPLES, steps, inputs), torch.randint(CLASSES, (SAMPLES,))
    return Classifier(layer, inputs, units), batch


def scoring(name: str, model: Classifier, batch: Batch) -> Callable[[], object]:
    return lambda: CRITERIA[name].score(model, batch, loss, find_targets(model))


def training_step(model: Classifier, batch: Batch) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()

    return step


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak_megabytes(work: str, *shape: object) -> float:
    """Measure what the peak of resident memory is above that before the work, which is done once (Linux)."""
    model, batch = build(*shape)
    function = training_step(model, batch) if work == "training step" else scoring(work, model, batch)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before = resident_peak()
    function()
    return (resident_peak() - before) / 1024


def resident_peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def in_own_process(*arguments: object) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_megabytes, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    print(describe())

    small = (nn.GRU, 28, 28, arguments.units)
    model, batch = build(*small)
    functions = {name: scoring(name, model, batch) for name in CRITERIA}
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(-1, arguments.repeats):
        for name, function in functions.items():
            taken = seconds(function)
            if repeat >= 0:
                times[name].append(taken)

    print(f"GRU-{arguments.units}, {SAMPLES} sequences of 28 x 28, {arguments.repeats} repeats, medians")
    print(f"{'':<30}{'ms':>8}{'/ SNIP':>8}{'peak MB':>10}")
    for name, taken in times.items():
        ratio = median(a / b for a, b in zip(taken, times["SNIP"], strict=True))
        print(f"{name:<30}{1e3 * median(taken):>8.1f}{ratio:>8.2f}{in_own_process(name, *small):>10.1f}", flush=True)

    large = (nn.LSTM, 20, 400, 2000)
    print(f"LSTM-2000, {SAMPLES} sequences of 20 x 400")
    for name in ("training step", "SNIP", "Jacobian, last 4 / gamma"):
        print(f"{name:<46}{in_own_process(name, *large):>10.1f}", flush=True)


if __name__ == "__main__":
    main()
