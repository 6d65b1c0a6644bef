"""Smaller dense layers beside sparse ones of as many weights, and beside the whole layer: milliseconds of a step.

A layer keeps a share of its kernels' weights in two ways: with fewer units, by ``shrink``, or with all units and zeros,
by a random mask and ``compact``. The whole and the smaller layer run in PyTorch and in ONNX Runtime; all five run in
turn, without gradients, with equal threads. Times are medians; what stands behind them says how many times as long the
whole layer in PyTorch takes, the median of the ratios of runs that stood side by side.

    python benchmarks/structured/speed.py [--layers GRU-400 LSTM-1000] [--seconds 2]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import onnxruntime
import torch
from torch import Tensor, nn

from sparse_rnn import Masks
from sparse_rnn.engine import compact
from sparse_rnn.engine.onnx_files import export_onnx
from sparse_rnn.pruning.structured import RandomUnits, shrink
from sparse_rnn.recurrent.kernels import find_targets

sys.path.append(str(Path(__file__).parents[1]))
from machine import describe

# Name, class, inputs, units, steps of a sequence.
LAYERS: Mapping[str, tuple[type[nn.RNNBase], int, int, int]] = {
    "GRU-400": (nn.GRU, 28, 400, 28),
    "LSTM-1000": (nn.LSTM, 400, 1000, 20),
}
SHARES = (0.05, 0.1, 0.25, 0.5)
BATCHES = (1, 64)
LEAST = 5


def smaller(layer: nn.RNNBase, share: float) -> nn.Module:
    """Return a layer with so many units that it has a share of the kernels' weights."""
    inputs, units = layer.input_size, layer.hidden_size
    left = (-inputs + (inputs**2 + 4 * share * units * (inputs + units)) ** 0.5) / 2
    plan = RandomUnits(round(left), reconstruct=False).plan(
        layer, torch.zeros(2, 1, inputs), readers={type(layer).__name__: []}
    )
    return shrink(layer, plan)


def sparse(layer: nn.Module, share: float) -> nn.Module:
    """Return the layer with a share of its weights, and all units."""
    kernels = find_targets(layer)
    return compact(layer, Masks.of(kernels, {name: torch.rand(found.shape) < share for name, found in kernels.items()}))


def in_onnx_runtime(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    """Return what runs a layer in ONNX Runtime, with as many threads as PyTorch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would else wait in a loop, on the cores that the next one is timed on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "layer.onnx")
        export_onnx(layer, x, path)
        session = onnxruntime.InferenceSession(path, options)
    inputs = {"input": x.numpy()}
    return lambda: session.run(None, inputs)


def in_turn(runs: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Time all, one after the other, again and again: seconds of each run."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    end = time.perf_counter() + seconds
    while len(times["whole"]) < LEAST or time.perf_counter() < end:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def report(name: str, seconds: float) -> None:
    """Print a line for each share and batch size."""
    kind, inputs, units, steps = LAYERS[name]
    for share in SHARES:
        torch.manual_seed(0)
        whole = kind(inputs, units).eval()
        small, zeros = smaller(whole, share), sparse(whole, share)
        for batch in BATCHES:
            x = torch.randn(steps, batch, inputs)
            runs: dict[str, Callable[[], object]] = {
                "whole": lambda: whole(x),  # noqa: B023 - called within the round
                "smaller": lambda: small(x),  # noqa: B023 - called within the round
                "sparse": lambda: zeros(x),  # noqa: B023 - called within the round
                "whole, ONNX": in_onnx_runtime(whole, x),
                "smaller, ONNX": in_onnx_runtime(small, x),
            }
            with torch.inference_mode():
                times = in_turn(runs, seconds)
            cells = [f"{1000 * median(times['whole']) / steps:9.4f}"]
            for own in ("smaller", "sparse", "whole, ONNX", "smaller, ONNX"):
                ratio = median(a / b for a, b in zip(times["whole"], times[own], strict=True))
                cells.append(f"{1000 * median(times[own]) / steps:9.4f} {ratio:6.1f}")
            print(f"{name:10}{share:5.0%}{small.hidden_size:7}{batch:6}", *cells, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to time each line (default: %(default)s)")
    known = parser.parse_args()
    print(f"{describe()}, onnxruntime {onnxruntime.__version__}")
    titles = ("smaller", "sparse", "whole, ONNX", "smaller, ONNX")
    print(f"{'layer':10}{'kept':>5}{'units':>7}{'batch':>6}{'whole':>10}", *(f"{title:>16}" for title in titles))
    for name in known.layers:
        report(name, known.seconds)


if __name__ == "__main__":
    main()
