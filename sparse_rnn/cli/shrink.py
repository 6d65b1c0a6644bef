"""``python -m sparse_rnn shrink``: a trained model with fewer units, and what that changes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor

from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.checkpoints import CONFIG, data_of, read
from sparse_rnn.cli.arguments import Parser, output_argument, positive
from sparse_rnn.cli.fit import PruningCLI
from sparse_rnn.cli.shrunk_checkpoint import Shrunk, masks_only, shrink_checkpoint
from sparse_rnn.config_files import read_config
from sparse_rnn.engine.onnx_files import export_onnx, onnx_session
from sparse_rnn.engine.timing import side_by_side
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel, SequenceClassifier
from sparse_rnn.paths import check_file_place
from sparse_rnn.pruning.structured import unit_criterion
from sparse_rnn.pruning.structured.choice import NAMES
from sparse_rnn.quiet import quiet_trainer
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.run_configs import moved
from sparse_rnn.writing import written_whole

BATCHES = (1, 64)
_SECONDS = 1.0
_FIT = "fit"  # the folder, beside the smaller model, of a fit that goes on with it
_HEADER = "# Written by python -m sparse_rnn shrink, of the configuration of the larger model.\n"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: What became of the model.
        model: The model.
        metrics: What it logs in validation.
        milliseconds: What its ``forward`` takes, by the heading of the column.
    """

    name: str
    model: LightningModule
    metrics: dict[str, float]
    milliseconds: dict[str, float]


def shrink(args: Sequence[str]) -> None:
    """Shrink the model of a checkpoint, write the checkpoint of the smaller one, and print a table of both.

    Args:
        args: What follows ``shrink`` on the command line.

    Raises:
        UsageError: If an argument, the checkpoint or the data cannot be used; nothing is written then.
        MissingFileError: If a file does not exist.
        SystemExit: With status 0 after ``--help``.
    """
    known = _parser().parse_args(args)
    criterion = unit_criterion(known.criterion, known.units)
    config_path = _config_path(known.output)
    checkpoint = read(known.checkpoint)
    data = data_of(checkpoint, known.data)
    before = _validated(checkpoint.model, data)
    small = shrink_checkpoint(checkpoint, data, criterion)
    if known.data is not None:
        small.config["data"] = read_config(known.data)["data"]
    after = _validated(small.model, data)
    times = dict(_times(checkpoint.model, small, known.onnx))
    first, second = ({name: pair[place] for name, pair in times.items()} for place in (0, 1))
    rows = [Row("before", checkpoint.model, before, first), Row("after", small.model, after, second)]
    with TemporaryDirectory() as folder:
        saved = small.saved
        if known.finetune:
            tuned, saved = _finetuned(small, known.finetune, checkpoint.folder, Path(folder))
            rows.append(Row("fine-tuned", tuned, _validated(tuned, data), second))
        _write(known.output, config_path, saved, moved(small.config, checkpoint.folder, config_path.parent / _FIT))
    read(known.output)
    print("\n".join([str(small.plan), *small.notes, "", *_table(rows), ""]))
    print(f"{known.output} ({known.output.stat().st_size:,} bytes), {config_path}")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m sparse_rnn shrink",
        description="Remove units from the recurrent layers of a trained model, so that they are smaller, dense ones. "
        "What reads the units is made up for those that are gone. Prints the model's validation before and after, and "
        "the milliseconds of its forward() in turn on random batches of 1 and 64; that of a language model ends before "
        "its output layer.",
        epilog="The data, the optimizer and everything else are those of the run's config.yaml. The new checkpoint has "
        "a config.yaml beside it: fit --config CONFIG --ckpt_path OUTPUT goes on with the run, with the optimizer's "
        "moments of the units that stay, in the folder fit beside them.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="checkpoint of the model")
    add("--output", type=output_argument, required=True, help="checkpoint to write; an earlier one is replaced")
    add(
        "--units",
        type=_units,
        help="how many units stay in each layer: a number, a share such as 0.5, or a mapping by "
        "module such as '{rnn: 42}'; not with --criterion Exact",
    )
    add(
        "--criterion",
        choices=NAMES,
        default="Spectral",
        help="what chooses them; Exact removes those that do nothing, "
        "after weights were pruned, and changes no output (default: %(default)s)",
    )
    add("--finetune", type=positive, default=0, help="epochs to train on with, as the run would (default: %(default)s)")
    add("--data", help="config whose data section is taken (default: the data of the run)")
    add("--onnx", action="store_true", help="time both in ONNX Runtime, too")
    return parser


def _units(text: str) -> Any:
    try:
        units = yaml.safe_load(text)
    except yaml.YAMLError:
        units = None
    numbers = list(units.values()) if isinstance(units, dict) else [units]
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is no number, and no mapping such as '{{rnn: 42}}'")
    return units


def _config_path(output: Path) -> Path:
    """Return where the configuration of the smaller model goes, which must not be another run's.

    Raises:
        UsageError: If it would be, or one of the two files cannot be written.
    """
    check_file_place("--output", output)
    folder = output.parent.parent if output.parent.name == "checkpoints" else output.parent
    path = folder / CONFIG
    check_file_place("--output", path)
    if path.exists() and not (output.exists() and path.read_text(encoding="utf-8").startswith(_HEADER)):
        raise UsageError(f"--output {output}: {path} is of another model, give a folder of its own.")
    return path


def _validated(model: LightningModule, data: LightningDataModule) -> dict[str, float]:
    with quiet_trainer() as trainer:
        [metrics, *_] = trainer.validate(model, datamodule=data, verbose=False) or [{}]
    model.eval()
    return dict(metrics)


def _finetuned(small: Shrunk, epochs: int, run: Path, folder: Path) -> tuple[LightningModule, dict[str, Any]]:
    """Train on with the smaller model, as its run would, in a folder of its own."""
    if "loops" not in small.saved:
        raise UsageError("--finetune goes on with a run, but the checkpoint holds weights only: leave it out.")
    # The epoch that a checkpoint was saved in is trained to its end, and as many after it as were asked for.
    done = small.saved["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"]
    start, end = folder / "start.ckpt", folder / "end.ckpt"
    torch.save(small.saved, start)
    config = moved(small.config, run, folder)
    config["trainer"] |= {"max_epochs": done + epochs, "max_steps": -1, "max_time": None}
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    cli = _FineTuning(["fit", "--config", str(folder / CONFIG), "--ckpt_path", str(start)])
    cli.trainer.save_checkpoint(end)
    saved = load_checkpoint(end)
    saved["callbacks"] = masks_only(saved.get("callbacks", {}))
    return cli.model.cpu().eval(), saved


class _FineTuning(PruningCLI):
    """A fit whose logs are thrown away."""

    def after_fit(self) -> None:
        """Print no summary."""

    def after_interrupt(self) -> None:
        """Print none either: its folder is gone, and shrink starts anew."""


def _write(output: Path, config_path: Path, saved: dict[str, Any], config: dict[str, Any]) -> None:
    with written_whole(output) as unfinished:
        torch.save(saved, unfinished)
    with written_whole(config_path) as unfinished:
        unfinished.write_text(_HEADER + yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _times(before: LightningModule, small: Shrunk, onnx: bool) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield heading and milliseconds of both models."""
    example = _example(before, small.batch)
    if example is None:
        return
    models = (before, small.model)
    with TemporaryDirectory() as folder, torch.inference_mode():
        sessions: list[Any] = []
        for number, model in enumerate(models if onnx else ()):
            path = Path(folder, f"{number}.onnx")
            with torch.inference_mode(False):
                export_onnx(model, example[:2], path)
            sessions.append(onnx_session(path))
        for batch in BATCHES:
            x = example[torch.arange(batch) % len(example)]
            yield f"ms at {batch}", _pair([_forward(model, x) for model in models])
            if onnx:
                yield f"ONNX ms at {batch}", _pair([_run(session, x) for session in sessions])


def _pair(functions: Sequence[Callable[[], object]]) -> tuple[float, float]:
    first, second, _ = side_by_side(functions[0], functions[1], _SECONDS)
    return first, second


def _forward(model: LightningModule, x: Tensor) -> Callable[[], object]:
    return lambda: model(x)


def _run(session: Any, x: Tensor) -> Callable[[], object]:
    inputs = {"input": x.numpy()}
    return lambda: session.run(None, inputs)


def _example(model: LightningModule, batch: Any) -> Tensor | None:
    """Return something to call a model with, [batch, time, ...]; None where that is not known."""
    if isinstance(model.example_input_array, Tensor):
        return model.example_input_array
    known = isinstance(model, (SequenceClassifier, LanguageModel)) and isinstance(batch[0], Tensor)
    return batch[0].cpu() if known else None  # sequences that are packed cannot be taken a few at a time


def _table(rows: Sequence[Row]) -> Iterator[str]:
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    times = dict.fromkeys(name for row in rows for name in row.milliseconds)
    lines = [["", "units", "weights", "not 0", *names, *times]]
    for row in rows:
        parameters = list(row.model.parameters())
        lines.append(
            [
                row.name,
                _sizes(row.model),
                f"{sum(p.numel() for p in parameters):,}",
                f"{sum(int(p.count_nonzero()) for p in parameters):,}",
                *(f"{row.metrics[name]:.4g}" for name in names),
                *(f"{row.milliseconds[name]:.3f}" for name in times),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        yield "  ".join([first.ljust(widths[0]), *(o.rjust(w) for o, w in zip(others, widths[1:], strict=True))])


def _sizes(model: LightningModule) -> str:
    modules: Iterable[Any] = (found.module for found in find_recurrent(model))
    return "+".join(str(module.hidden_size) for module in modules)
