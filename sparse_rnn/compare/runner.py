"""Runs the fits of a comparison, each in a process of its own, and remembers the finished ones."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from sparse_rnn.compare.grid import METRICS, Grid, Run
from sparse_rnn.errors import UsageError

COMPARED = {"val/error": 2, "val/ppl": 2, "val/loss": 4}  # by what runs are compared, and its decimals; the best first
RESULT = "result.json"
_LOG = "log.txt"
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 10


@dataclass(frozen=True)
class Result:
    """What a finished run reached.

    Args:
        run: Which one.
        metrics: Name to value, as logged last.
        seconds: Wall time of the fit, without imports.
        settings: What `Grid.settings` was.
        made_by: Commit, versions and machine.
        validated: The step that the metrics are of; None in results of before that was noted.
        checkpoint: Where the last model is.
    """

    run: Run
    metrics: dict[str, float]
    seconds: float
    settings: list[str]
    made_by: str
    validated: int | None = None
    checkpoint: str = ""


def finished(grid: Grid) -> list[Result]:
    """Read the results of a grid's finished runs, in the grid's order."""
    return [_read(path) for run in grid.runs() if (path := grid.folder(run) / RESULT).exists()]


def run_missing(grid: Grid) -> list[str]:
    """Run what is not finished, with a progress bar on stderr.

    Args:
        grid: The comparison.

    Returns:
        A line for each run that failed: its name, the last line that it printed, and where its log lies.

    Raises:
        UsageError: If finished runs had other settings than the grid.
        KeyboardInterrupt: If the user stopped it; no child is left running.
    """
    done = finished(grid)
    _check_settings(grid, done)
    waiting = [run for run in grid.runs() if run not in {result.run for result in done}]
    running: dict[Run, subprocess.Popen[bytes]] = {}
    failed: list[str] = []
    bar = tqdm(total=len(grid.runs()), initial=len(done), desc="compare", unit="run")
    with bar, _children_stopped(running):
        while waiting or running:
            while waiting and len(running) < grid.jobs:
                run = waiting.pop(0)
                running[run] = _start(grid, run)
                bar.set_postfix_str(", ".join(map(str, running)))
            for run in [run for run, process in running.items() if process.poll() is not None]:
                if problem := _conclude(grid, run, running.pop(run).returncode):
                    failed.append(f"{run}: {problem} (log: {grid.folder(run) / _LOG})")
                    bar.write(f"failed: {failed[-1]}", file=sys.stderr)
                bar.update()
            time.sleep(_POLL_SECONDS)
    return failed


def _read(path: Path) -> Result:
    values = json.loads(path.read_text())
    return Result(**values | {"run": Run(**values["run"])})


def _check_settings(grid: Grid, done: list[Result]) -> None:
    for result in done:
        if result.settings != grid.settings(result.run):
            raise UsageError(
                f"{grid.folder(result.run)} was run with other overrides or another content of a config: "
                f"give another --output, or delete {grid.output}."
            )


def _start(grid: Grid, run: Run) -> "subprocess.Popen[bytes]":
    folder = grid.folder(run)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arguments = ["-m", "sparse_rnn", *grid.fit_arguments(run)]
    with (folder / _LOG).open("w") as log:
        log.write(shlex.join(["python", *arguments]) + "\n")
        log.flush()
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // grid.jobs))},
        )


def _conclude(grid: Grid, run: Run, status: int) -> str | None:
    """Write the result of a run that has ended; say what was wrong if there is none."""
    folder = grid.folder(run)
    if status:
        lines = (folder / _LOG).read_text(errors="replace").split("\n")
        return f"status {status}, {next(line for line in reversed(lines) if line.strip())}"
    if not (folder / METRICS).exists():
        return "it ended before its fit did"
    record = json.loads((folder / METRICS).read_text())
    if not COMPARED.keys() & record["metrics"].keys():
        return f"it logs none of {', '.join(COMPARED)}"
    of_run = {name: record[name] for name in ("metrics", "seconds", "made_by", "validated", "checkpoint")}
    result = Result(run, settings=grid.settings(run), **of_run)
    unfinished = folder / f"{RESULT}.part"
    unfinished.write_text(json.dumps(asdict(result), indent=1))
    unfinished.replace(folder / RESULT)
    return None


@contextmanager
def _children_stopped(running: dict[Run, "subprocess.Popen[bytes]"]) -> Iterator[None]:
    """Leave no child behind, whatever ends this process; a polite kill is a Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in running.values():
            process.terminate()
        for process in running.values():
            _await_end(process)


def _await_end(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
