"""Time and peak memory of scoring a GRU-400 on 64 sequences of 28x28, beside the gradient of a loss.

The yardstick is what SNIP needs: one forward and one backward pass of the model, through PyTorch's fused GRU. The two
are timed in turn, in one process; the median of the ratios of pairs is printed. Peak memory is what a process
of its own grows by while it does the work once.

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

from sparse_rnn import JacobianSpectrum

SAMPLES, STEPS, INPUTS, CLASSES = 64, 28, 28, 10

CRITERIA = {
    "Jacobian, last 4 steps": JacobianSpectrum(),
    "  without gamma": JacobianSpectrum(gamma="none"),
    "  exact Frobenius norm": JacobianSpectrum(projection="exact"),
    "  state held constant": JacobianSpectrum(through_time=False),
    "Jacobian, last step": JacobianSpectrum(horizon=1),
}


class Classifier(nn.Module):
    """Recurrent layer and output layer, as in sequential MNIST."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(INPUTS, units, batch_first=True)
        self.head = nn.Linear(units, CLASSES)
        for parameter in self.rnn.parameters():
            nn.init.normal_(parameter, 0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def build(units: int) -> tuple[Classifier, Tensor, Tensor]:
    torch.manual_seed(0)
    return Classifier(units), torch.rand(SAMPLES, STEPS, INPUTS), torch.randint(CLASSES, (SAMPLES,))


def work(units: int) -> dict[str, Callable[[], object]]:
    model, x, y = build(units)
    kernels = [model.rnn.weight_ih_l0, model.rnn.weight_hh_l0]
    yardstick = {"loss gradient": lambda: torch.autograd.grad(cross_entropy(model(x), y), kernels)}
    return yardstick | {name: lambda c=criterion: c.score(model, x) for name, criterion in CRITERIA.items()}


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak_megabytes(units: int, name: str) -> float:
    """What the peak of resident memory is above that before the work, which is done once (Linux)."""
    function = work(units)[name]
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before = resident_peak()
    function()
    return (resident_peak() - before) / 1024


def resident_peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    print(describe())
    print(f"GRU-{arguments.units}, {SAMPLES} sequences of {STEPS} x {INPUTS}, {arguments.repeats} repeats, medians")

    functions = work(arguments.units)
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(arguments.repeats):
        for name, function in functions.items():
            times[name].append(seconds(function))

    yardstick = times["loss gradient"]
    print(f"{'':<26}{'ms':>8}{'ratio':>8}{'peak MB':>10}")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name, taken in times.items():
            ratio = median(a / b for a, b in zip(taken, yardstick, strict=True))
            memory = pool.apply(peak_megabytes, (arguments.units, name))
            print(f"{name:<26}{1e3 * median(taken):>8.1f}{ratio:>8.2f}{memory:>10.1f}")


if __name__ == "__main__":
    main()
