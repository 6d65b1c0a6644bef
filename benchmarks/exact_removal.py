"""How many units of a pruned GRU can be removed without a change of its output.

A sequence classifier of one GRU layer is pruned by random masks and by magnitude (its recurrent kernels, ranked
together), with biases at 0, as they are before training, and with biases drawn from N(0, 1), as training moves them
away from 0. Printed are the units that ``Exact`` removes, seed by seed, and the largest change of a logit.

    python benchmarks/exact_removal.py [--units 400] [--seeds 3]
    python benchmarks/exact_removal.py --checkpoints last.ckpt …   # the same of networks that have been trained
"""

import argparse
import warnings
from pathlib import Path

import torch
from machine import describe
from torch import nn

from sparse_rnn import Criterion, Magnitude, Random, prune
from sparse_rnn.checkpoints import read
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.pruning.structured import Exact, shrink
from sparse_rnn.recurrent.kernels import find_targets

FEATURES, STEPS, SAMPLES, CLASSES = 28, 28, 16, 10
SPARSITIES = (0.95, 0.98, 0.99, 0.995)


def removed(units: int, criterion: Criterion, sparsity: float, biases: bool, seed: int) -> tuple[int, float]:
    """Prune a classifier, take out what is not needed; return how many units, and by how much a logit has changed."""
    torch.manual_seed(seed)
    model, x = SequenceClassifier(FEATURES, CLASSES, "gru", units).double(), torch.randn(SAMPLES, STEPS, FEATURES)
    x = x.double()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name, parameter in model.named_parameters():
            if biases and "bias" in name:
                parameter.normal_()
        prune(model, x, sparsity=sparsity, criterion=criterion, seed=seed)
        plan = Exact().plan(model, x)
        return plan.removed, (shrink(model, plan)(x) - model(x)).abs().max().item()


def of_trained(path: Path) -> str:
    """Return what a line says of a network that was pruned while it was trained."""
    torch.manual_seed(0)
    checkpoint = read(path)
    model, x = checkpoint.model.double().eval(), torch.randn(SAMPLES, STEPS, FEATURES).double()
    plan = Exact().plan(model, x)
    with torch.no_grad():
        change = (shrink(model, plan)(x) - model(x)).abs().max().item()
    units = sum(layer.hidden_size for layer in model.modules() if isinstance(layer, nn.RNNBase))
    kernels = find_targets(model).values()
    left = sum(int(kernel.parameter.count_nonzero()) for kernel in kernels) / sum(k.parameter.numel() for k in kernels)
    return f"trained, {1 - left:8.1%}  {units} units    removed {plan.removed:<14}largest change {change:.0e}"


def main() -> None:
    """Print a line for each criterion, sparsity and kind of biases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--checkpoints", type=Path, nargs="+", help="of such classifiers, in place of new ones")
    arguments = parser.parse_args()
    print(describe())
    if arguments.checkpoints:
        print(*map(of_trained, arguments.checkpoints), sep="\n")
        return
    for criterion in (Random(), Magnitude()):
        for biases in (False, True):
            for sparsity in SPARSITIES:
                runs = [removed(arguments.units, criterion, sparsity, biases, seed) for seed in range(arguments.seeds)]
                units, changes = zip(*runs, strict=True)
                print(
                    f"{type(criterion).__name__:10}{sparsity:8.1%}  biases {'N(0, 1)' if biases else '0':8}"
                    f"removed {', '.join(map(str, units)):14}largest change {max(changes):.0e}"
                )


if __name__ == "__main__":
    main()
