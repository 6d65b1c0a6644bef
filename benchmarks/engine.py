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
from pathlib import Path

import torch
from machine import describe
from torch import nn
from tqdm import tqdm

from sparse_rnn import Masks
from sparse_rnn.engine import compact
from sparse_rnn.engine.choice import choose
from sparse_rnn.engine.live import Engine
from sparse_rnn.engine.timing import side_by_side, time_layers
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
    print("layer     batch  dense ms sparse ms  ratio  dense MB sparse MB   GB/s difference")
    for name, (kind, inputs, units, steps) in LAYERS.items():
        torch.manual_seed(0)
        layer = kind(inputs, units).eval()
        pruned(layer, 1 - SPARSITY)
        for row in time_layers(layer, compact(layer), BATCHES, steps, seconds):
            print(
                f"{name:9} {row.batch:5} {row.dense:9.3f} {row.sparse:9.3f} {row.ratio:6.1f} "
                f"{row.dense_bytes / 1e6:9.2f} {row.sparse_bytes / 1e6:9.2f} {row.bandwidth:6.1f} {row.error:10.1e}",
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
