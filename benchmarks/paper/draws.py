"""How much of what `JacobianSpectrum.author()` keeps the noise of γ decides: what two draws of it have in common.

A GRU with N(0, 0.1) kernels, scored on the first 64 training images of sequential MNIST, 95 % sparse. For each number
of draws that γ is averaged over, five scorings of one network differ in the noise of γ alone. Printed is the share of
the kept weights that two of them have in common, the mean over all pairs, of the input and of the recurrent kernel.

    python benchmarks/paper/draws.py [--hidden_size 400] [--draws 1 4 16]
"""

import argparse
import warnings
from itertools import combinations

import torch
from torch import Tensor, nn

from sparse_rnn import JacobianSpectrum, prune
from sparse_rnn.data import SequentialMNIST
from sparse_rnn.sparsity.masks import Masks

TIMES = 5


def gru(units: int) -> nn.GRU:
    torch.manual_seed(0)
    layer = nn.GRU(28, units)
    for name, parameter in layer.named_parameters():
        nn.init.normal_(parameter, 0, 0.1) if name.startswith("weight") else nn.init.zeros_(parameter)
    return layer


def in_common(first: Tensor, second: Tensor) -> float:
    return float((first & second).sum() / first.sum())


def masks(units: int, draws: int, x: Tensor) -> list[Masks]:
    criterion = JacobianSpectrum.author(draws=draws)
    return [prune(gru(units), x, sparsity=0.95, criterion=criterion, seed=seed) for seed in range(TIMES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden_size", type=int, default=400, help="units (default: 400)")
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 4, 16], help="draws of γ's noise (default: 1 4 16)")
    known = parser.parse_args()
    warnings.filterwarnings("ignore", message="No weight is left of")
    images, _ = SequentialMNIST(split="paper").load().train[:64]
    x = images.transpose(0, 1).contiguous()
    print(f"{'draws':>6}{'input kernel':>16}{'recurrent kernel':>20}")
    for draws in known.draws:
        found = masks(known.hidden_size, draws, x)
        shares = [
            sum(in_common(a[name], b[name]) for a, b in combinations(found, 2)) / (TIMES * (TIMES - 1) / 2)
            for name in ("weight_ih_l0", "weight_hh_l0")
        ]
        print(f"{draws:>6}{shares[0]:>16.0%}{shares[1]:>20.0%}")


if __name__ == "__main__":
    main()
