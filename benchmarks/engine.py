"""What sparse layers cost beside dense ones of this PyTorch: dense and sparse in turn in one run, with equal threads.

    python benchmarks/engine.py inference   # layers with their gates, 95 % sparse, as compact() makes them
    python benchmarks/engine.py stream      # the same, a call for each step, with the state carried
    python benchmarks/engine.py training    # a step of a plain loop with Adam and the masks
    python benchmarks/engine.py memory      # the peak of that step, in processes of their own
    python benchmarks/engine.py epoch       # an epoch of fit with gru_mnist.yaml; needs SPARSE_RNN_DATA
    python benchmarks/engine.py grid        # over density, size, threads and batch; may be interrupted
    python benchmarks/engine.py costs       # of that grid: what sparse_rnn/engine/choice.py estimates with

Times are medians; a ratio is the median of the ratios of runs that stood side by side.
"""

import argparse
import contextlib
import csv
import io
import itertools
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Timer
from machine import describe
from scipy.optimize import nnls
from torch import nn
from tqdm import tqdm

from sparse_rnn import Masks, OneShotPruning
from sparse_rnn.config_files import read_config
from sparse_rnn.data import SequentialMNIST
from sparse_rnn.engine import compact
from sparse_rnn.engine.choice import SECOND_LEVEL, THIRD_LEVEL, Size, choose
from sparse_rnn.engine.live import Engine
from sparse_rnn.engine.timing import side_by_side, time_layers
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.recurrent.kernels import find_targets

SPARSITY = 0.95
# Name, class, inputs, units, steps of a sequence.
LAYERS = {
    "LSTM-2000": (nn.LSTM, 400, 2000, 20),
    "LSTM-1600": (nn.LSTM, 400, 1600, 20),
    "GRU-400": (nn.GRU, 28, 400, 28),
}
RESULTS = Path(__file__).parent / "results"
CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}
GRID = ("cell", "units", "density", "batch", "threads", "pass", "dense_ms", "sparse_ms", "ratio")
STEPS = 10
DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
SIZES = (32, 100, 200, 400, 1000, 2000)
LARGEST, ITS_DENSITIES = 4000, (0.05, 0.5)  # takes minutes to train: inference only
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
        sizes = {dtype: compact(layer, dtype=dtype).nbytes for dtype in (torch.float32, torch.bfloat16, torch.int8)}
        print(name, *(f"{str(dtype).removeprefix('torch.')} {size:,} bytes" for dtype, size in sizes.items()), sep="  ")
        for row in time_layers(layer, compact(layer), BATCHES, steps, seconds):
            print(
                f"{name:9} {row.batch:5} {row.dense:9.3f} {row.sparse:9.3f} {row.ratio:6.1f} "
                f"{row.dense_bytes / 1e6:9.2f} {row.sparse_bytes / 1e6:9.2f} {row.bandwidth:6.1f} {row.error:10.1e}",
                flush=True,
            )


def stream(seconds: float) -> None:
    """Print what a call of one step takes, beside a step within a whole sequence."""
    print("layer     a call of one step, ms: dense   sparse  ratio   a step of a sequence, sparse: ms")
    for name, (kind, inputs, units, steps) in LAYERS.items():
        torch.manual_seed(0)
        layer = kind(inputs, units).eval()
        pruned(layer, 1 - SPARSITY)
        small = compact(layer)
        x = torch.randn(steps, 1, inputs)

        def stepwise(layer: nn.Module, x: torch.Tensor = x) -> None:
            state = None
            for step in x.unbind():
                _, state = layer(step.unsqueeze(0), state)

        with torch.inference_mode():
            dense, sparse, ratio = side_by_side(lambda: stepwise(layer), lambda: stepwise(small), seconds)  # noqa: B023 - called within the round
            whole = side_by_side(lambda: small(x), lambda: small(x), seconds / 4)[0]  # noqa: B023 - called within the round
        print(f"{name:9} {dense / steps:30.3f} {sparse / steps:8.3f} {ratio:6.1f} {whole / steps:31.3f}", flush=True)


def memory(seconds: float) -> None:
    """Print the peak of memory of a process that makes training steps, less what it takes to import torch."""
    print("            dense MiB  sparse MiB")
    for name in ("GRU-400", "LSTM-2000"):
        peaks = []
        for is_sparse in (False, True):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                peaks.append(pool.submit(peak, name, is_sparse).result())
        print(f"{name:10} {peaks[0]:10.0f} {peaks[1]:11.0f}", flush=True)


def peak(name: str, sparse: bool) -> float:
    """Return the MiB that three training steps take at most."""
    before = getrusage(RUSAGE_SELF).ru_maxrss
    kind, inputs, units, steps = LAYERS[name]
    step = Step(kind, inputs, units, steps, 1 - SPARSITY, sparse)
    for _ in range(3):
        step()
    return (getrusage(RUSAGE_SELF).ru_maxrss - before) / 1024


def epoch(seconds: float) -> None:
    """Print what an epoch of the shipped configuration takes, and what it ends at."""
    config = read_config("gru_mnist.yaml")
    options = config["model"]["init_args"]
    print("engine   seconds of training   val/error")
    for engine in ("dense", "sparse", "dense", "sparse"):
        seed_everything(0)
        model = SequenceClassifier(**{name: value for name, value in options.items() if name != "optimizer"})
        timer = Timer()
        pruning = OneShotPruning(SPARSITY, engine=engine)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            trainer = Trainer(max_epochs=1, callbacks=[pruning, timer], logger=False, enable_checkpointing=False)
            trainer.fit(model, SequentialMNIST(**config["data"]["init_args"]))
        error = float(trainer.callback_metrics["val/error"])
        print(f"{engine:8} {timer.time_elapsed('train'):19.1f} {error:11.2f}", flush=True)


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
    """Time forward passes, and those with a backward pass, over the grid; one that was interrupted goes on."""
    done = {tuple(row[:5]) for row in csv.reader(output.open())} if output.exists() else set()
    points = [
        *itertools.product(CELLS, SIZES, DENSITIES, BATCHES, (2,)),
        *itertools.product(CELLS, SIZES, (0.05,), BATCHES, (1,)),
        *itertools.product(CELLS, (LARGEST,), ITS_DENSITIES, BATCHES, (2,)),
    ]
    with output.open("a", newline="") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(GRID)
        for point in tqdm(points, file=sys.stderr):
            if tuple(map(str, point)) not in done:
                writer.writerows([*point, *row] for row in timed(*point, seconds))
                file.flush()
    report(output)


def timed(cell: str, units: int, density: float, batch: int, threads: int, seconds: float) -> list[list[object]]:
    """Time a layer with as many inputs as units, on ten steps, both ways: milliseconds a step."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    layer = CELLS[cell](units, units)
    masks = pruned(layer, density)
    x = torch.randn(STEPS, batch, units)
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
    for training in (False, True) if units < LARGEST else (False,):
        dense, sparse, ratio = side_by_side(lambda: run(True, training), lambda: run(False, training), seconds)  # noqa: B023 - called within the round
        purpose = "training" if training else "inference"
        rows.append([purpose, f"{dense / STEPS:.4f}", f"{sparse / STEPS:.4f}", f"{ratio:.3f}"])
    engine.remove()
    return rows


def report(path: Path) -> None:
    """Print where auto does not choose the faster way, and a table of ratios."""
    rows = list(csv.DictReader(path.open()))
    wrong = []
    for row in rows:
        units, batch, ratio = int(row["units"]), int(row["batch"]), float(row["ratio"])
        gates = {"gru": 3, "lstm": 4}[row["cell"]]
        total = 2 * gates * units**2
        size = Size(total, round(total * float(row["density"])), 4 * units)
        sparse = choose(row["cell"], [size], batch, row["pass"] == "training").sparse
        loss = (1 / ratio if sparse else ratio) - 1
        if loss > 0.1:
            wrong.append(f"{' '.join(row.values())}: auto takes {'sparse' if sparse else 'dense'}")
    print(f"auto loses more than a tenth at {len(wrong)} of {len(rows)} points", *wrong, sep="\n  ")
    for purpose, cell in itertools.product(("inference", "training"), CELLS):
        for batch in BATCHES:
            print(
                f"\n{purpose}, {cell}, batch {batch}, 2 threads: dense / sparse\n{'units':>6}",
                *(f"{d:7.0%}" for d in DENSITIES),
            )
            for units in (*SIZES, LARGEST):
                found = {
                    float(row["density"]): float(row["ratio"])
                    for row in rows
                    if (row["pass"], row["cell"], row["batch"], row["units"], row["threads"])
                    == (purpose, cell, str(batch), str(units), "2")
                }
                if found:
                    print(f"{units:6}", *(f"{found[d]:7.2f}" if d in found else " " * 7 for d in DENSITIES))


def costs(path: Path) -> None:
    """Print the costs of choice.py that come nearest to a grid, by least squares of relative errors."""
    rows = [row for row in csv.DictReader(path.open()) if row["threads"] == "2"]
    for cell, purpose, several in itertools.product(CELLS, ("inference", "training"), (False, True)):
        wanted = cell, purpose, several
        own = [row for row in rows if (row["cell"], row["pass"], int(row["batch"]) > 1) == wanted]
        total, kept, gated, batch = (np.array(column, dtype=float) for column in zip(*map(_size, own), strict=True))
        ones, tiles = np.ones_like(total), np.ceil(batch / 32)
        far, farther = (np.maximum(total - level, 0) for level in (SECOND_LEVEL, THIRD_LEVEL))
        # Of one sequence nothing tells what a weight costs from what it costs for each sequence.
        columns = {
            "dense": [total, far, farther, total * batch * several, gated * batch, batch * several, ones],
            "sparse": [
                *(kept * tiles, np.maximum(kept - SECOND_LEVEL, 0) * tiles, kept * batch * several),
                *(gated * batch, ones),
            ],
        }
        for way, found in columns.items():
            milliseconds = np.array([float(row[f"{way}_ms"]) for row in own])
            fitted, _ = nnls(np.stack(found, 1) / milliseconds[:, None] * 1e-6, ones)
            print(*wanted, way, ", ".join(f"{cost:.4g}" for cost in fitted))


def _size(row: dict[str, str]) -> tuple[float, ...]:
    units = int(row["units"])
    total = 2 * {"gru": 3, "lstm": 4}[row["cell"]] * units**2
    return total, total * float(row["density"]), 4 * units, int(row["batch"])


PARTS = {"inference": inference, "stream": stream, "training": training, "memory": memory, "epoch": epoch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=(*PARTS, "grid", "costs"))
    parser.add_argument("--seconds", type=float, default=4.0, help="how long to time each pair")
    parser.add_argument("--output", type=Path, default=RESULTS / "engine_grid.csv", help="where the grid is")
    known = parser.parse_args()
    print(describe())
    if known.part in ("grid", "costs"):
        grid(known.output, known.seconds) if known.part == "grid" else costs(known.output)
    else:
        PARTS[known.part](known.seconds)


if __name__ == "__main__":
    main()
