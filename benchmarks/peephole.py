"""Cost of a training step of PeepholeLSTM beside nn.LSTM, per kernel weight.

The layers take turns within one run, so that whatever else the machine does meets all of them; medians are printed.

    python benchmarks/peephole.py --hidden 400 --steps 28 --repeats 50
"""

import argparse
import statistics
import time

import torch
from machine import describe
from torch import nn

from sparse_rnn import PeepholeLSTM

BATCH, FEATURES = 64, 28


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(0)
    x_TBI = torch.randn(arguments.steps, BATCH, FEATURES)
    layers = {
        "nn.LSTM": nn.LSTM(FEATURES, arguments.hidden),
        "PeepholeLSTM full": PeepholeLSTM(FEATURES, arguments.hidden),
        "PeepholeLSTM diagonal": PeepholeLSTM(FEATURES, arguments.hidden, peepholes="diagonal"),
    }
    seconds = measure(layers, x_TBI, arguments.repeats)
    print(describe())
    print(
        f"{FEATURES} -> {arguments.hidden} units, {arguments.steps} steps, batch {BATCH}, {arguments.repeats} repeats"
    )
    print(f"{'layer':<22} {'kernel weights':>14} {'ms':>10} {'ns a weight':>12} {'ratio':>6} {'ratio a weight':>15}")
    base_time, base_size = seconds["nn.LSTM"], kernel_weights(layers["nn.LSTM"])
    for name, layer in layers.items():
        size, ratio = kernel_weights(layer), seconds[name] / base_time
        per_weight = seconds[name] / size * 1e9
        print(
            f"{name:<22} {size:>14,} {seconds[name] * 1e3:>10.1f} {per_weight:>12.1f}"
            f" {ratio:>6.2f} {ratio * base_size / size:>15.2f}"
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=400, help="units of the layer")
    parser.add_argument("--steps", type=int, default=28, help="time steps of a sequence")
    parser.add_argument("--repeats", type=int, default=50, help="measured training steps per layer")
    return parser.parse_args()


def measure(layers: dict[str, nn.Module], x_TBI: torch.Tensor, repeats: int) -> dict[str, float]:
    """Return each layer's median seconds for a forward and backward pass."""
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    for repeat in range(-3, repeats):
        for name, layer in layers.items():
            start = time.perf_counter()
            layer.zero_grad()
            layer(x_TBI)[0].sum().backward()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def kernel_weights(layer: nn.Module) -> int:
    return sum(parameter.numel() for name, parameter in layer.named_parameters() if name.startswith("weight_"))


if __name__ == "__main__":
    main()
