"""A training step of an output layer: full softmax with Adam beside sampled softmax with RowAdam.

A step is the loss, its gradient and the update. The two take turns within one run, so that whatever else the machine
does meets both; medians are printed, with the peak memory of each in a process of its own and the bytes of gradient
that a rank gives to the others. With $SPARSE_RNN_DATA, the real word counts of the One Billion Word benchmark then say
how well log-uniform samples fit, and how a sampled step fares with all of its 793,471 words.

    python benchmarks/sampled_softmax.py --hidden 512 2000
"""

import argparse
import gzip
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe
from torch import Tensor

from sparse_rnn.modules.optim.row_adam import RowAdam
from sparse_rnn.modules.softmax.output_layers import FullSoftmax
from sparse_rnn.modules.softmax.sampled import SampledSoftmaxLoss, log_uniform, probability

COUNTS = Path(os.environ.get("SPARSE_RNN_DATA", "")) / "lm1b" / "unigram-counts.sorted.txt.gz"
KINDS = ["full", "sampled"]


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(0)
    if arguments.peak:
        print_peak(arguments)
        return
    print(describe())
    print(f"{arguments.samples} samples, {arguments.targets} targets, {arguments.repeats} repeats")
    print("   words hidden layer           ms  ratio  peak MiB  state MiB  sent MB")
    for hidden in arguments.hidden:
        target = log_uniform(torch.rand(arguments.targets, dtype=torch.float64), arguments.words)
        report(arguments, arguments.words, hidden, target, KINDS)
    if COUNTS.is_file():
        with gzip.open(COUNTS) as lines:
            counts = torch.tensor([int(line) for line in lines])
        target = counts.double().multinomial(arguments.targets, replacement=True)
        report(arguments, len(counts), arguments.hidden[0], target, ["sampled"])
        print_fit(counts)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=100_000, help="size of the vocabulary")
    parser.add_argument("--hidden", type=int, nargs="+", default=[512, 2000], help="sizes of a hidden state")
    parser.add_argument("--samples", type=int, default=1000, help="sampled words")
    parser.add_argument("--targets", type=int, default=1280, help="targets of a batch")
    parser.add_argument("--repeats", type=int, default=5, help="measured steps of each")
    parser.add_argument("--peak", choices=KINDS, help="only print this layer's peak memory in MiB")
    return parser.parse_args()


def report(arguments: argparse.Namespace, words: int, hidden: int, target: Tensor, kinds: list[str]) -> None:
    """Print a line for each kind of layer."""
    layers = {kind: layer(kind, words, hidden, arguments.samples) for kind in kinds}
    steps = {kind: stepper(module, target) for kind, module in layers.items()}
    seconds = interleaved(steps, arguments.repeats)
    sent = {kind: bytes_sent(module) for kind, module in layers.items()}
    del layers, steps  # the processes measured next need the memory
    for kind in kinds:
        ratio = seconds["full"] / seconds[kind] if "full" in kinds else math.nan
        size = ["--words", words, "--hidden", hidden, "--samples", arguments.samples, "--targets", arguments.targets]
        command = [sys.executable, __file__, *map(str, size), "--peak", kind]
        peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        state = 3 * 4 * words * (hidden + 1) / 2**20  # parameters and two moments
        print(
            f"{words:>8,} {hidden:>6} {kind:<8} {seconds[kind] * 1e3:>9.1f} {ratio:>6.1f}"
            f" {peak:>9.0f} {state:>10.0f} {sent[kind] / 1e6:>8.1f}",
            flush=True,
        )


def layer(kind: str, words: int, hidden: int, samples: int) -> FullSoftmax:
    return FullSoftmax(hidden, words) if kind == "full" else SampledSoftmaxLoss(hidden, words, samples)


def stepper(module: FullSoftmax, target: Tensor) -> Callable[[], None]:
    """Make a training step of the output layer, down to the gradient of the hidden states."""
    sampled = isinstance(module, SampledSoftmaxLoss)
    optimizer = (RowAdam if sampled else torch.optim.Adam)(module.parameters(), lr=1e-3)
    h_ND = torch.randn(len(target), module.weight.shape[1], requires_grad=True)

    def step() -> None:
        optimizer.zero_grad()
        h_ND.grad = None
        module(h_ND, target).backward()
        optimizer.step()

    return step


def interleaved(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each, after one step that is not measured."""
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for repeat in range(-1, repeats):
        for kind, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat >= 0:
                seconds[kind].append(time.perf_counter() - start)
    return {kind: statistics.median(times) for kind, times in seconds.items()}


def bytes_sent(module: FullSoftmax) -> int:
    """Bytes of the gradients that a rank gives to the exchange: all of a dense one, rows of a sparse one."""
    gradients = [p.grad.coalesce() if p.grad.is_sparse else p.grad for p in module.parameters()]
    tensors = [x for g in gradients for x in ([g.indices(), g.values()] if g.is_sparse else [g])]
    return sum(x.numel() * x.element_size() for x in tensors)


def print_peak(arguments: argparse.Namespace) -> None:
    """Print how much the resident memory grew at most, in MiB, over three steps."""
    before = memory("VmRSS")
    target = log_uniform(torch.rand(arguments.targets, dtype=torch.float64), arguments.words)
    step = stepper(layer(arguments.peak, arguments.words, arguments.hidden[0], arguments.samples), target)
    for _ in range(3):
        step()
    print(memory("VmHWM") - before)


def memory(field: str) -> float:
    """MiB of this process, as Linux tells it: getrusage counts the peak of the process that started it, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def print_fit(counts: Tensor) -> None:
    """Compare the log-uniform distribution with the real frequencies."""
    real, sampled = counts / counts.sum(), probability(torch.arange(len(counts)), len(counts))
    divergence = (real * (real / sampled).log()).sum()
    print(f"Real frequencies of {len(counts):,} words: KL(real | log-uniform) = {divergence:.3f} nats")
    for top in (10, 100, 1000, 10_000, 100_000):
        print(f"  the first {top:>7,}: {real[:top].sum():6.1%} of the text, {sampled[:top].sum():6.1%} of the draws")


if __name__ == "__main__":
    main()
