"""``python -m sparse_rnn bench``: what a trained model's layers take as dense ones and over their kept weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from sparse_rnn.checkpoints import read
from sparse_rnn.cli.arguments import Parser, positive, seconds, times
from sparse_rnn.cli.export import DTYPES
from sparse_rnn.engine import compact
from sparse_rnn.engine.layers import SparseLayer
from sparse_rnn.engine.timing import time_layers

BATCHES = (1, 4, 16, 64)


def bench(args: Sequence[str]) -> None:
    """Time the layers of a checkpoint, and print a line for each batch size.

    Args:
        args: What follows ``bench`` on the command line.

    Raises:
        UsageError: If an argument or the checkpoint cannot be used.
        MissingFileError: If there is no checkpoint.
        SystemExit: With status 0 after ``--help``.
    """
    known = _parser().parse_args(args)
    checkpoint = read(known.checkpoint)
    model = copy.deepcopy(checkpoint.model).eval()
    small = compact(model, checkpoint.masks if checkpoint.pruned else None, getattr(torch, known.dtype))
    layers = [(name, layer) for name, layer in small.named_modules() if isinstance(layer, SparseLayer)]
    for name, layer in layers:
        print(f"{name}: density {layer.density:.2%}, kernels: {layer.backend}, {torch.get_num_threads()} threads")
    width = max(len("layer"), *(len(name) for name, _ in layers))
    print(
        f"{'layer':{width}} {'batch':>5} {'dense ms':>9} {'sparse ms':>9} {'ratio':>6} {'dense MB':>9} "
        f"{'sparse MB':>9} {'GB/s':>6} {'difference':>10}"
    )
    for row in time_layers(model, small, known.batch, known.steps, known.seconds):
        print(
            f"{row.name:{width}} {row.batch:5} {row.dense:9.3f} {row.sparse:9.3f} {row.ratio:6.1f} "
            f"{row.dense_bytes / 1e6:9.2f} {row.sparse_bytes / 1e6:9.2f} {row.bandwidth:6.1f} {row.error:10.1e}",
            flush=True,
        )


def _parser() -> Parser:
    parser = Parser(
        prog="python -m sparse_rnn bench",
        description="Time the recurrent layers of a trained model, without gradients and on random inputs: as dense "
        "ones of PyTorch, and over their kept weights, as export writes them. Both run in turn, with the same threads. "
        "Times are milliseconds a step of a sequence, the medians; the ratio says how many times as long the dense "
        "layer takes; GB/s is how fast the sparse one goes through what it holds; the difference is the largest of an "
        "output.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="checkpoint of the model")
    add("--dtype", choices=DTYPES, default="float32", help="as for export (default: %(default)s)")
    add("--batch", type=positive, nargs="+", default=BATCHES, help="batch sizes (default: 1 4 16 64)")
    add("--steps", type=times, default=20, help="steps of a sequence (default: %(default)s)")
    add("--seconds", type=seconds, default=1.0, help="how long to time each batch size (default: %(default)s)")
    return parser
