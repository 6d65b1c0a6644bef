"""Runs the fits of a comparison, each in a process of its own, and remembers the finished ones."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.compare.folders import named
from sparse_rnn.compare.grid import METRICS, Grid, Run
from sparse_rnn.compare.orphans import BOUND
from sparse_rnn.compare.recorder import EXACT
from sparse_rnn.compare.results import Result, by, metric, read_result
from sparse_rnn.compare.tuning import choose
from sparse_rnn.compare.words import path_words
from sparse_rnn.errors import UsageError
from sparse_rnn.versions import code

_LOG = "log.txt"
_UNDER_WAY = "under_way.json"  # what a run was begun with, until it has ended
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 10


def finished(grid: Grid) -> list[Result]:
    """Read the results of a grid's finished runs, those that tune first, in the grid's order."""
    tuned = _finished(grid, grid.tuning_runs())
    return [*tuned, *_finished(grid, grid.runs(choose(grid, tuned)))]


def run_missing(grid: Grid) -> list[str]:
    """Run what is not finished, with a progress bar on stderr; what tunes comes first.

    Args:
        grid: The comparison.

    Returns:
        A line for each run that failed: its name, the last line that it printed, and where its log lies.

    Raises:
        UsageError: If finished runs had other settings than the grid, or a run has not logged what is compared.
        KeyboardInterrupt: If the user stopped it; no child is left running.
    """
    done = finished(grid)
    check_settings(grid, done)
    total = len(grid.tuning_runs()) + grid.seeds * len(grid.cells())
    with tqdm(total=total, initial=len(done), desc="compare", unit="run") as bar:
        failed = run_all(grid, grid.tuning_runs(), bar)
        return [*failed, *run_all(grid, grid.runs(choose(grid, finished(grid))), bar)]


def run_all(grid: Grid, runs: list[Run], bar: tqdm) -> list[str]:
    """Run those of some runs that are not finished, and return a line for each that failed, as :func:`run_missing`."""
    results = _finished(grid, runs)
    done = {result.run for result in results}
    waiting = [run for run in runs if run not in done]
    running: dict[Run, subprocess.Popen[bytes]] = {}
    failed: list[str] = []
    with _children_stopped(running):
        while waiting or running:
            while waiting and len(running) < grid.jobs:
                run = waiting.pop(0)
                running[run] = _start(grid, run, bar)
                bar.set_postfix_str(", ".join(map(str, running)))
            for run in [run for run, process in running.items() if process.poll() is not None]:
                process = running.pop(run)
                _await_end(process)
                problem = _conclude(grid, run, process.returncode)
                (grid.folder(run) / _UNDER_WAY).unlink(missing_ok=True)
                if problem:
                    failed.append(f"{run}: {problem} (log: {grid.folder(run) / _LOG})")
                    bar.write(f"failed: {failed[-1]}", file=sys.stderr)
                else:
                    results += _finished(grid, [run])
                    metric(results)  # raises where they have none in common: no further fit is worth its time then
                bar.update()
            time.sleep(_POLL_SECONDS)
    return failed


def _finished(grid: Grid, runs: list[Run]) -> list[Result]:
    found = [(run, read_result(grid.folder(run))) for run in runs]
    for run, result in found:
        if result is not None and result.run != run:
            raise UsageError(
                f"{grid.folder(run)} was run with an argument in its other spelling, with or without init_args: spell "
                "it as before, or give another --output."
            )
    return [by(result, grid.metric) for _, result in found if result is not None]


def check_settings(grid: Grid, done: list[Result]) -> None:
    """Refuse finished runs that had other settings than the grid, with a UsageError that names all of their folders."""
    _refuse(grid, [result.run for result in done if result.settings != grid.settings(result.run)])


def _refuse(grid: Grid, others: list[Run]) -> None:
    if others:
        raise UsageError(
            "Of other settings (arguments, or the content of a config) are the runs in "
            f"{named({grid.folder(run) for run in others})}: give another --output, or delete these folders, and no "
            "other ones."
        )


def _start(grid: Grid, run: Run, bar: tqdm) -> "subprocess.Popen[bytes]":
    """Start a fit, or go on with one that was under way when the comparison was stopped."""
    folder = grid.folder(run)
    arguments = ["-m", "sparse_rnn", *grid.fit_arguments(run)]
    if checkpoint := _left_over(grid, run, bar):
        arguments += path_words("--ckpt_path", checkpoint)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / _UNDER_WAY).write_text(json.dumps(_begun_with(grid, run)), encoding="utf-8")
    with (folder / _LOG).open("a", encoding="utf-8") as log:
        log.write(shlex.join(["python", *arguments]) + "\n")
        log.flush()
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,  # never written to: it closes when this process ends
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {BOUND: "1", "OMP_NUM_THREADS": str(_threads(grid))},
        )


def _left_over(grid: Grid, run: Run, bar: tqdm) -> Path | None:
    """Find the checkpoint from which a stopped fit ends as if it had never been stopped; None: it has to begin anew.

    Raises:
        UsageError: If the fit had other settings, and its checkpoint is worth something.
    """
    folder = grid.folder(run)
    try:
        begun_with = json.loads((folder / _UNDER_WAY).read_text(encoding="utf-8"))
        newest = max(folder.rglob("last*.ckpt"), key=lambda path: path.stat().st_mtime, default=None)
        if newest is None or not load_checkpoint(newest).get(EXACT):
            return None
        settings, made_by = begun_with["settings"], begun_with["made_by"]
    except (OSError, ValueError, KeyError, TypeError):  # nothing, or not whole
        return None
    if settings != grid.settings(run):
        _refuse(grid, [run])
    if made_by != _made_by(grid):
        bar.write(f"{run} begins anew: it was begun with {', '.join(made_by)}.", file=sys.stderr)
        return None
    return newest


def _begun_with(grid: Grid, run: Run) -> dict[str, list[str]]:
    """Say what must be the same for a fit to go on."""
    return {"settings": grid.settings(run), "made_by": _made_by(grid)}


def _made_by(grid: Grid) -> list[str]:
    return [*code(), f"{_threads(grid)} threads a run"]


def _threads(grid: Grid) -> int:
    return max(1, torch.get_num_threads() // grid.jobs)


def _conclude(grid: Grid, run: Run, status: int) -> str | None:
    """Write the result of a run that has ended; say what was wrong if there is none."""
    folder = grid.folder(run)
    if status:
        lines = (folder / _LOG).read_text(encoding="utf-8", errors="replace").split("\n")
        return f"status {status}, {next(line for line in reversed(lines) if line.strip())}"
    if not (folder / METRICS).exists():
        return "it ended before its fit did"
    record = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    names = ("metrics", "seconds", "made_by", "validated", "checkpoint", "history")
    Result(run, settings=grid.settings(run), **{name: record[name] for name in names}).write(folder)
    return None


@contextmanager
def _children_stopped(running: dict[Run, "subprocess.Popen[bytes]"]) -> Iterator[None]:
    """Leave no child behind, whatever ends this process by an exception."""
    try:
        yield
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            _await_end(process)


def _await_end(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    finally:
        if process.stdin is not None:
            process.stdin.close()
