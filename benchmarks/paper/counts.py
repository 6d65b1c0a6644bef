"""Counts what the masks of a table keep: the weights of every gate, and the units that a kernel no longer reaches.

Each fit chooses its masks as it does in the table, and ends after one step. The scripts of the tables call this where
COUNTS is set, with the arguments of `compare`, and keep what it prints beside the table's figures:

    COUNTS=1 CELLS=rnn,lstm,peephole_lstm benchmarks/paper/table1.sh --seeds 1 --without_dense
"""

import csv
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from tempfile import TemporaryDirectory

from torch import Tensor

from sparse_rnn.callbacks.finding import current_masks
from sparse_rnn.cli.compare import parse
from sparse_rnn.cli.fit import PruningCLI
from sparse_rnn.compare.grid import Grid, Run
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.layers import named_layers
from sparse_rnn.sparsity.connections import kept_weights
from sparse_rnn.sparsity.statistics import gate_statistics

ONE_STEP = "--trainer.max_steps 1 --trainer.limit_val_batches 0 --trainer.num_sanity_val_steps 0"
HEAD = ("method", "sparsity", "varied", "seed", "kernel", "gate", "kept", "of", "units_without")


def main() -> None:
    write = csv.writer(sys.stdout).writerow
    write(HEAD)
    with TemporaryDirectory() as folder:
        grid = parse([*sys.argv[1:], "--output", folder])
        one_shot = {method.name for method in grid.methods if method.one_shot}
        for run in grid.runs():
            if run.cell.method in one_shot:
                varied = " ".join(f"{key}={value}" for key, value in run.cell.varied)
                for row in counts(grid, run):
                    write([run.cell.method, run.cell.sparsity, varied, run.seed, *row])
                sys.stdout.flush()


def counts(grid: Grid, run: Run) -> Iterator[tuple[str, str, int, int, int]]:
    """Make the masks of a run; yield kernel, gate, weights kept, all weights, and the units that the kernel lost."""
    with redirect_stdout(sys.stderr):
        fit = PruningCLI([*grid.fit_arguments(run), *ONE_STEP.split()])
    masks = current_masks(fit.trainer)
    for layer in named_layers(find_recurrent(fit.model)).values():
        for role, mask in kept_weights(layer, masks).items():
            for gate in gate_statistics(layer.kernels[role], layer.gates_of(role), mask):
                yield gate.kernel, gate.gate, gate.kept, gate.total, units_without(mask, layer.hidden_size)


def units_without(mask: Tensor, units: int) -> int:
    """Count the units of which a kernel, all gates together, has no weight left."""
    return int((~mask.view(-1, units, mask.shape[1]).any(2).any(0)).sum())


if __name__ == "__main__":
    main()
