"""What 95 % sparse layers cost on a CUDA device, with weights in bfloat16, beside cuDNN's dense ones in half precision.

    python benchmarks/engine_gpu.py [--seconds 1]

Both are timed as they are called, and captured in a CUDA graph: the sparse layers launch each step from Python. Times
are medians of a step of a sequence of 20, and the ratio is that of the graphs.
"""

import argparse
from collections.abc import Callable

import torch
from torch import nn

from sparse_rnn import Masks
from sparse_rnn.engine import compact
from sparse_rnn.engine.timing import side_by_side
from sparse_rnn.recurrent.kernels import find_targets

DENSITY, INPUTS, STEPS = 0.05, 400, 20
CELLS = (nn.LSTM, nn.GRU)
SIZES = (1500, 2000, 4096)
BATCHES = (1, 4, 16)


def captured(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Capture a call in a graph, after one that compiles the kernels."""
    layer(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layer(x)
    return graph.replay


def timed(dense: Callable[[], object], sparse: Callable[[], object], seconds: float) -> tuple[float, float, float]:
    """Return what a step of each takes in milliseconds, and the ratio."""
    first, second, ratio = side_by_side(
        lambda: (dense(), torch.cuda.synchronize()), lambda: (sparse(), torch.cuda.synchronize()), seconds
    )
    return first / STEPS, second / STEPS, ratio


@torch.no_grad()
def report(kind: type[nn.Module], units: int, seconds: float) -> None:
    layer = kind(INPUTS, units)
    kernels = find_targets(layer)
    Masks.of(kernels, {name: torch.rand(kernel.shape) < DENSITY for name, kernel in kernels.items()}).apply_()
    sparse = compact(layer, dtype=torch.bfloat16).cuda()
    dense = layer.half().cuda()
    dense.flatten_parameters()
    for batch in BATCHES:
        x = torch.randn(STEPS, batch, INPUTS, device="cuda")
        half = x.half()
        error = float((dense(half)[0] - sparse(x)[0]).abs().max())
        called = timed(lambda: dense(half), lambda: sparse(x), seconds)  # noqa: B023 - called within the round
        in_graph = timed(captured(dense, half), captured(sparse, x), seconds)
        print(
            f"{kind.__name__}-{units:<6} {batch:5} {called[0]:9.4f} {called[1]:9.4f} {in_graph[0]:9.4f} "
            f"{in_graph[1]:9.4f} {in_graph[2]:6.1f} {error:10.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1, help="how long to time each point (default: 1)")
    seconds = parser.parse_args().seconds
    if not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was timed.")
        return
    torch.manual_seed(0)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, ms a step")
    print("                  called            in a graph")
    print("layer       batch     dense    sparse     dense    sparse  ratio difference")
    for kind in CELLS:
        for units in SIZES:
            report(kind, units, seconds)


if __name__ == "__main__":
    main()
