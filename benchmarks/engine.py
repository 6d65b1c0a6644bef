"""What sparse layers cost beside dense ones of this PyTorch: dense and sparse in turn in one run, with equal threads.

    python benchmarks/engine.py inference [--seconds 4]     # a layer with its gates, 95 % sparse, as compact() makes it
    python benchmarks/engine.py training [--steps 30]       # a whole step of a fit, and a plain loop's, with Adam
    python benchmarks/engine.py grid [--output grid.csv]    # over density, size, threads and batch: where dense wins

Times are medians; a ratio is the median of the ratios of runs that stood side by side.
"""

import argparse
import csv
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from machine import describe
from torch import nn
from tqdm import tqdm

from sparse_rnn import Masks
from sparse_rnn.engine import compact
from sparse_rnn.engine.choice import choose
from sparse_rnn.engine.live import Engine
from sparse_rnn.recurrent.kernels import find_targets

SPARSITY = 0.95
# Name, class, inputs, units, steps of a sequence.
LAYERS = {
    "LSTM-2000": (nn.LSTM, 400, 2000, 20),
    "LSTM-1600": (nn.LSTM, 400, 1600, 20),
    "GRU-400": (nn.GRU, 28, 400, 28),
}
DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
SIZES = (100, 200, 400, 1000, 2000, 4000)
BATCHES = (1, 16, 64)


def side_by_side(
    first: Callable[[], object], second: Callable[[], object], seconds: float
) -> tuple[float, float, float]:
    """Time two functions in turn.

    Args:
        first: The one.
        second: The other.
        seconds: How long to go on; each runs five times at least, and once before.

    Returns:
        Their medians in milliseconds, and the median ratio of first to second.
    """
    first(), second()
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        pair = []
        for run in (first, second):
            start = time.perf_counter()
            run()
            pair.append(time.perf_counter() - start)
        times.append((pair[0], pair[1]))
    return *(1000 * median(column) for column in zip(*times, strict=True)), median(a / b for a, b in times)


def pruned(layer: nn.Module, density: float) -> Masks:
    """Remove weights of a layer at random, and return what is left."""
    kernels = find_targets(layer)
    masks = Masks.of(kernels, {name: torch.rand(kernel.shape) < density for name, kernel in kernels.items()})
    masks.apply_()
    return masks


def bandwidth() -> float:
    """Measure how fast this machine reads memory that is in no cache, in GB/s."""
    numbers = torch.ones(1 << 27)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - start)
    return numbers.nbytes / min(times) / 1e9


def inference(seconds: float) -> None:
    """Print what a step of a sequence takes."""
    print(f"memory is read at {bandwidth():.1f} GB/s")
    print(
        f"{'':10} {'batch':>5} {'dense ms':>9} {'sparse ms':>9} {'ratio':>6} {'dense MB':>9} {'sparse MB':>9} {'GB/s':>6} {'error':>8}"
    )
    for name, (kind, inputs, units, steps) in LAYERS.items():
        torch.manual_seed(0)
        layer = kind(inputs, units).eval()
        pruned(layer, 1 - SPARSITY)
        small = compact(layer)
        for batch in BATCHES:
            x = torch.randn(steps, batch, inputs)
            with torch.inference_mode():
                dense, sparse, ratio = side_by_side(lambda: layer(x), lambda: small(x), seconds)  # noqa: B023
                error = float((layer(x)[0] - small(x)[0]).abs().max())
            size = sum(parameter.nbytes for parameter in layer.parameters())
            tiles = -(-batch // 32)  # each reads the weights once a step
            speed = tiles * small.nbytes / (sparse / steps / 1000) / 1e9
            print(
                f"{name:10} {batch:5} {dense / steps:9.3f} {sparse / steps:9.3f} {ratio:6.1f} {size / 1e6:9.2f} "
                f"{small.nbytes / 1e6:9.2f} {speed:6.1f} {error:8.1e}",
                flush=True,
            )


class Step:
    """A training step that anybody would write: a layer, a linear one on the last output, Adam."""

    def __init__(
        self, kind: type[nn.Module], inputs: int, units: int, steps: int, density: float, sparse: bool
    ) -> None:
        torch.manual_seed(0)
        self.layer = kind(inputs, units, batch_first=True)
        self.head = nn.Linear(units, 10)
        self.masks = pruned(self.layer, density)
        self.optimizer = torch.optim.Adam([*self.layer.parameters(), *self.head.parameters()])
        self.x, self.y = torch.randn(64, steps, inputs), torch.randint(10, (64,))
        self.engine = Engine("sparse" if sparse else "dense", lambda _: None)
        self.engine.update(self.masks)

    def __call__(self) -> None:
        self.engine.begin_step([self.optimizer], dense=False)
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.head(self.layer(self.x)[0][:, -1]), self.y).backward()
        self.masks.apply_to_gradients_()
        self.optimizer.step()
        self.masks.apply_()


def training(seconds: float) -> None:
    """Print what a training step takes: forward, backward, Adam, and the masks."""
    print(f"{'':10} {'sparsity':>8} {'dense ms':>9} {'sparse ms':>9} {'ratio':>6}")
    for name in ("GRU-400", "LSTM-2000"):
        kind, inputs, units, steps = LAYERS[name]
        for density in (0.05, 0.1):
            both = [Step(kind, inputs, units, steps, density, sparse) for sparse in (False, True)]
            dense, sparse, ratio = side_by_side(both[0], both[1], seconds)
            print(f"{name:10} {1 - density:8.2f} {dense:9.1f} {sparse:9.1f} {ratio:6.2f}", flush=True)


def grid(output: Path, seconds: float) -> None:
    """Time forward passes, and with backward ones, over the grid; a grid that was interrupted goes on."""
    fields = ("cell", "units", "density", "batch", "threads", "pass", "dense_ms", "sparse_ms", "auto")
    done = {tuple(row[:6]) for row in csv.reader(output.open())} if output.exists() else set()
    cells = {"gru": nn.GRU, "lstm": nn.LSTM}
    points = list(itertools.product(cells, SIZES, DENSITIES, BATCHES, (1, 2)))
    with output.open("a", newline="") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(fields)
        for cell, units, density, batch, threads in tqdm(points, file=sys.stderr):
            if (cell, str(units), str(density), str(batch), str(threads), "training") in done:
                continue
            torch.set_num_threads(threads)
            for row in timed(cells[cell], units, density, batch, seconds):
                writer.writerow([cell, units, density, batch, threads, *row])
            file.flush()


def timed(kind: type[nn.Module], units: int, density: float, batch: int, seconds: float) -> list[list[object]]:
    """Time a layer with as many inputs as units, on ten steps, both ways."""
    layer = kind(units, units)
    masks = pruned(layer, density)
    x = torch.randn(10, batch, units)
    engine = Engine("sparse", lambda _: None)
    engine.update(masks)

    def run(dense: bool, training: bool) -> None:
        engine.dense = dense
        with torch.set_grad_enabled(training):
            output = layer(x)[0]
            if training:
                layer.zero_grad()
                output.sum().backward()

    rows: list[list[object]] = []
    for training in (False, True):
        dense, sparse, _ = side_by_side(lambda: run(True, training), lambda: run(False, training), seconds)  # noqa: B023
        kept = sum(int(mask.count_nonzero()) for mask in masks.values())
        auto = choose([(units, units, kept)], batch, training).sparse
        rows.append(
            ["training" if training else "inference", f"{dense:.3f}", f"{sparse:.3f}", "sparse" if auto else "dense"]
        )
    engine.remove()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("inference", "training", "grid"))
    parser.add_argument("--seconds", type=float, default=4.0, help="how long to time each pair")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=Path("engine_grid.csv"), help="where the grid goes")
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    print(describe())
    if known.part == "inference":
        inference(known.seconds)
    elif known.part == "training":
        training(known.seconds)
    else:
        grid(known.output, known.seconds)


if __name__ == "__main__":
    main()
