"""``python -m sparse_rnn analyze``: figures, tables and a page about trained checkpoints."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sparse_rnn.analysis.numbers import Spectra, measure, measure_spectra
from sparse_rnn.analysis.origins import validation_samples
from sparse_rnn.analysis.report import FILES, PAGE, write_report
from sparse_rnn.analysis.runs import Trained, read_runs
from sparse_rnn.checkpoints import data_of
from sparse_rnn.cli.arguments import Parser, output_argument
from sparse_rnn.errors import UsageError
from sparse_rnn.locks import alone_for_now
from sparse_rnn.paths import check_place


def analyze(args: Sequence[str]) -> None:
    """Analyze checkpoints and write a report of them.

    Args:
        args: What follows ``analyze`` on the command line.

    Raises:
        UsageError: If an argument, a checkpoint or the data cannot be used; nothing is written then.
        MissingFileError: If a file does not exist.
        SystemExit: With status 0 after ``--help``.
    """
    known = _parser().parse_args(args)
    _check_replaceable(known.output)
    notes: list[str] = []
    numbers = [
        measure(trained, *_on_data(trained, known.data, notes))
        for trained in read_runs(known.checkpoint, known.dense, known.module)
    ]
    with alone_for_now(_lock(known.output)), _complete_or_absent(known.output) as folder:
        write_report(folder, numbers, shlex.join(["python", "-m", "sparse_rnn", "analyze", *args]), notes, _tell)
    print(known.output / PAGE)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m sparse_rnn analyze",
        description="Draw what pruning left of the recurrent layers of trained models and what it did to them: "
        "remaining connections by gate and as a map, singular values of the temporal Jacobian, how far back "
        "information survives, connections of the units, training curves. Each figure is written as PNG and SVG, the "
        "numbers behind it as CSV, and all of them on one page, report.html.",
        epilog="A run is known by its checkpoint, the config.yaml beside it and its event files. The singular values "
        "take 64 training samples of the run; what needs no data is drawn without them.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--checkpoint", nargs="+", required=True, help="checkpoints of pruned models, side by side")
    add("--dense", help="checkpoint of the same model that was not pruned")
    add(
        "--module",
        help="import path of the models' class, as in project.models.Tagger, called with what the checkpoint's "
        "hyper_parameters hold (default: the class that the run's config or checkpoint names)",
    )
    add(
        "--output",
        type=output_argument,
        required=True,
        help="folder of the report; an earlier report there is replaced",
    )
    add("--data", help="config whose data section gives the samples (default: the data of each run)")
    return parser


def _on_data(trained: Trained, data: str | None, notes: list[str]) -> tuple[Spectra, int | None]:
    """Measure the spectra of a checkpoint, and count what it was validated on.

    Where its run's own data cannot be had there is neither, and a note says why; other data were not validated on.
    """
    _tell(f"Singular values of {trained.name}")
    try:
        read = data_of(trained, data)
        return measure_spectra(trained, read), validation_samples(trained, read) if data is None else None
    except (UsageError, RuntimeError, OSError) as error:  # of a project's own data and training step, too
        if data is not None:
            raise UsageError(f"The data of {data} give no singular values of {trained.name}: {error}") from error
        notes.append(f"No singular values of {trained.name}: {error}")
        _tell(notes[-1])
        return Spectra(), None


def _check_replaceable(output: Path) -> None:
    if output.resolve() == Path.cwd():
        raise UsageError(f"--output {output} is the working folder, which cannot be replaced: give another folder.")
    if output.exists() and not (output.is_dir() and {path.name for path in output.iterdir()} <= FILES):
        raise UsageError(f"--output {output} exists and is no report, or holds other files too: give another folder.")
    check_place("--output", output)


def _lock(output: Path) -> Path:
    """Name a file that processes on this machine lock which write the same report."""
    name = hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"sparse_rnn-analyze-{name}.lock")


@contextmanager
def _complete_or_absent(output: Path) -> Iterator[Path]:
    """Give a folder that becomes the output, in place of an earlier one, once it is complete."""
    output = output.resolve()  # a link stays where it is
    unfinished, earlier = (output.with_name(f".{output.name}.{part}") for part in ("unfinished", "earlier"))
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if output.exists():
            shutil.rmtree(earlier, ignore_errors=True)  # of a run that was killed
            output.rename(earlier)
        unfinished.rename(output)
    finally:
        if earlier.exists() and not output.exists():
            earlier.rename(output)
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
