"""``python -m sparse_rnn export``: a trained model as a file for deployment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from sparse_rnn.checkpoints import Checkpoint, read
from sparse_rnn.cli.arguments import Parser, output_argument
from sparse_rnn.engine import compact, save
from sparse_rnn.engine.layers import SparseLayer
from sparse_rnn.engine.onnx_files import export_onnx
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel, SequenceClassifier
from sparse_rnn.paths import check_file_place

DTYPES = ("float32", "bfloat16", "int8")
FORMATS = {".safetensors": "safetensors", ".onnx": "onnx"}
_EXAMPLE = (2, 9)


def export(args: Sequence[str]) -> None:
    """Write the model of a checkpoint for deployment, and print what its layers take.

    Args:
        args: What follows ``export`` on the command line.

    Raises:
        UsageError: If an argument or the checkpoint cannot be used; nothing is written then.
        MissingFileError: If there is no checkpoint.
        SystemExit: With status 0 after ``--help``.
    """
    known = _parser().parse_args(args)
    written = _format(known.output, known.format)
    if written == "onnx" and known.dtype != "float32":
        raise UsageError(f"--dtype {known.dtype}: ONNX files are dense and float32; leave --dtype out.")
    check_file_place("--output", known.output)
    checkpoint = read(known.checkpoint)
    if written == "onnx":
        export_onnx(checkpoint.model, _example(checkpoint.model), known.output)
    else:
        _save(checkpoint, known.output, known.dtype)
    print(f"{known.output} ({known.output.stat().st_size:,} bytes)")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m sparse_rnn export",
        description="Write a trained model for deployment. As safetensors its recurrent layers hold the kept weights "
        "only, compute with nothing else, and are read by sparse_rnn.engine.load. As ONNX they are dense, with zeros: "
        "any runtime reads it, and none that we know gains speed from the zeros.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="checkpoint of the model")
    add("--output", type=output_argument, required=True, help="file to write; an earlier one is replaced")
    add("--dtype", choices=DTYPES, default="float32", help="what kept weights are stored in (default: %(default)s)")
    add("--format", choices=FORMATS.values(), help="what to write (default: as the suffix says, else safetensors)")
    return parser


def _format(output: Path, asked: str | None) -> str:
    """Decide what is written by the suffix of the file, or by what is asked for where the suffix says nothing."""
    named = FORMATS.get(output.suffix.lower())
    if asked and named and asked != named:
        raise UsageError(
            f"--format {asked} is not what {output} names: leave --format out, or end the name in another way."
        )
    return asked or named or "safetensors"


def _save(checkpoint: Checkpoint, output: Path, dtype: str) -> None:
    model = checkpoint.model
    small = compact(model, checkpoint.masks if checkpoint.pruned else None, getattr(torch, dtype))
    save(small, output)
    for name, layer in small.named_modules():
        if isinstance(layer, SparseLayer):
            dense = sum(parameter.nbytes for parameter in model.get_submodule(name).parameters())
            print(
                f"{name}: {type(layer).__name__} of density {layer.density:.2%}, {layer.nbytes:,} bytes for {dense:,}"
            )


def _example(model: LightningModule) -> Tensor:
    """Return something to call a model with."""
    if isinstance(model.example_input_array, Tensor):
        return model.example_input_array
    if isinstance(model, SequenceClassifier) and model.embedding is None:
        return torch.randn(*_EXAMPLE, model.input_size)
    if isinstance(model, SequenceClassifier):
        return torch.randint(model.input_size, _EXAMPLE)
    if isinstance(model, LanguageModel):
        return torch.randint(model.embedding.num_embeddings, _EXAMPLE)
    raise UsageError(
        f"{type(model).__name__} does not say what it is called with: set its example_input_array to a tensor."
    )
