import csv
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from sparse_rnn.compare import runner
from sparse_rnn.compare.recorder import EXACT

ARGS = ["compare", "--config", "gru_digits.yaml", "--criteria", "JacobianSpectrum,Random", "--sparsity", "0.9"]
FOLDER = Path("compare/gru_digits")
LR = "model.optimizer.init_args.lr"

STUB = """#!{python}
import json, os, sys, time
from pathlib import Path
path = Path(sys.argv[sys.argv.index("--trainer.callbacks.path") + 1])
name, calls = path.parent.name, Path("calls")
metrics = {{"val/error": 3.0}}
with calls.open("a") as file:
    file.write(name + " " + os.environ["OMP_NUM_THREADS"] + " " + str(os.getpid()) + "\\n")
def wait_for(done):
    for _ in range(600):
        if done(): return
        time.sleep(0.1)
    sys.exit("nobody came")
{behaviour}
record = {{"seconds": 1.0, "metrics": metrics, "made_by": "a stub", "validated": 3, "checkpoint": "last.ckpt"}}
record["history"] = []
path.write_text(json.dumps(record))
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Stands a script that behaves as told in for the fits; what takes longer than it is not done beside it."""
    python = sys.executable
    monkeypatch.setattr("sparse_rnn.cli.compare.check_fits", lambda grid: None)
    monkeypatch.setattr("sparse_rnn.compare.runner._POLL_SECONDS", 0.01)
    monkeypatch.setattr("sparse_rnn.compare.report.against_epochs", lambda results, grid: Figure())

    def stub(behaviour=""):
        script = tmp_path / "stub"
        script.write_text(STUB.format(python=python, behaviour=behaviour))
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return stub


def calls():
    return [line.split() for line in Path("calls").read_text().splitlines()] if Path("calls").exists() else []


def names():
    return [name for name, *_ in calls()]


def status_of(run, *args):
    with pytest.raises(SystemExit) as exit_:
        run(*ARGS, *args)
    return exit_.value.code


@pytest.mark.slow
def test_a_tuned_grid_of_fits_on_digits_with_its_control(run, capsys):
    args = [*ARGS[:3], "--criteria", "snip", *ARGS[-2:], "--control", "shuffle", "--seeds", "1", "--jobs", "2"]
    args += ["--tune", f"{LR}=1e-6,1e-2", "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "3"]
    args += ["--trainer.accelerator", "cpu", "--model.hidden_size", "6", "--trainer.log_every_n_steps", "1"]
    args += ["--pruning.num_samples", "8"]
    run(*args)
    out = capsys.readouterr().out

    with (FOLDER / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    rows = ["dense", "SNIP", "SNIP-shuffled"]
    assert [line["method"] for line in lines if line["stage"] == "final"] == rows
    tuned = [line for line in lines if line["stage"] == "tune"]
    assert [(line["method"], line[LR], line["seed"]) for line in tuned] == [
        (row, rate, "1000") for row in rows for rate in ("1e-06", "0.01")
    ]
    counts = []
    for line in lines[6:]:
        tried = [other for other in tuned if other["method"] == line["method"]]
        assert line[LR] == min(tried, key=lambda other: float(other["val/error"]))[LR]
        assert f"{float(line['val/error']):.2f} (n=1)" in out
        checkpoint = torch.load(line["checkpoint"], weights_only=True)
        assert int(line["validated"]) == checkpoint["global_step"] == 6
        assert line["best_epoch"] in ("1.0", "2.0")
        kernels = [value for key, value in checkpoint["state_dict"].items() if key.startswith("rnn.weight")]
        counts.append([int(gate.count_nonzero()) for kernel in kernels for gate in kernel.chunk(3)])
    dense, snip, shuffled = counts
    assert snip == shuffled != dense
    assert sum(snip) == round(0.1 * sum(dense))
    assert "SNIP at sparsity 0.9: what shuffling its masks does is known after two seeds" in out
    assert f"torch {torch.__version__}" in (FOLDER / "results.md").read_text()
    assert (FOLDER / "epochs.png").stat().st_size > 1000

    run(*args)  # finished, all of it
    assert capsys.readouterr().out == out


def test_finished_runs_are_skipped_and_failed_ones_start_anew(run, stub, capsys):
    stub("if 'Random' in name: Path(path.parent, 'half').touch(); print('it broke'); sys.exit(3)")
    assert status_of(run, "--seeds", "1") == 1
    checkpoint(FOLDER / "Random-0.9-seed0")
    err = capsys.readouterr().err
    assert "Random-0.9-seed0: status 3, it broke (log: compare/gru_digits/Random-0.9-seed0/log.txt)" in err
    assert names() == ["dense-seed0", "JacobianSpectrum-0.9-seed0", "Random-0.9-seed0"]

    stub()
    Path("calls").unlink()
    run(*ARGS, "--seeds", "2")
    assert names() == ["Random-0.9-seed0", "dense-seed1", "JacobianSpectrum-0.9-seed1", "Random-0.9-seed1"]
    assert not (FOLDER / "Random-0.9-seed0" / "half").exists()
    assert "3.00 ± 0.00" in capsys.readouterr().out

    Path("calls").unlink()
    run(*ARGS, "--seeds", "2")
    assert names() == []


def test_the_metric_that_is_asked_for_is_compared(run, stub, capsys):
    stub("metrics['train/ppl_sample'] = 7.5")
    run(*ARGS, "--seeds", "1", "--metric", "train/ppl_sample")
    out = capsys.readouterr().out
    assert "train/ppl_sample of the last validation, less is better" in out
    assert "7.50 (n=1)" in out


@pytest.mark.parametrize(
    ("metrics", "asked", "said"),
    [
        ({"val/bpc": 2.0}, ["--metric", "val/bcp"], "--metric val/bcp: dense-seed0 has logged none, but val/bpc"),
        ({"train/loss": 1.0}, [], "none of val/error, val/ppl, val/loss in common (dense-seed0 logs train/loss)"),
        ({}, [], "(dense-seed0 logs nothing)"),
    ],
)
def test_a_metric_that_is_not_logged_stops_the_comparison_after_one_fit_which_is_kept(
    run, stub, refused, capsys, metrics, asked, said
):
    stub(f"metrics = {metrics}")
    assert said in refused(*ARGS, "--seeds", "2", *asked)
    assert names() == ["dense-seed0"]
    if asked:
        run(*ARGS, "--seeds", "1", "--metric", "val/bpc")
        assert "2.0000 (n=1)" in capsys.readouterr().out
        assert names().count("dense-seed0") == 1


@pytest.mark.slow
def test_what_tunes_runs_first_and_a_longer_grid_reuses_what_is_finished(run, stub, capsys):
    rate = "float(sys.argv[sys.argv.index('--model.optimizer.init_args.lr') + 1])"
    stub(f"metrics['val/error'] = abs({rate} - 0.01)")
    args = [*ARGS[:3], "--criteria", "Random", *ARGS[-2:], "--seeds", "1"]
    run(*args, "--tune", f"{LR}=0.001,0.003")
    slug = "model.optimizer.lr"
    tuning = [f"{row}-{slug}={value}-tune" for row in ("dense", "Random-0.9") for value in (0.001, 0.003)]
    assert names() == [*tuning, f"dense-{slug}=0.003-seed0", f"Random-0.9-{slug}=0.003-seed0"]
    assert "@0.003!" in capsys.readouterr().out

    Path("calls").unlink()
    run(*args, "--tune", f"{LR}=0.001,0.003,0.01,0.03")
    assert names() == [
        *(f"{row}-{slug}={value}-tune" for row in ("dense", "Random-0.9") for value in (0.01, 0.03)),
        *(f"{row}-{slug}=0.01-seed0" for row in ("dense", "Random-0.9")),
    ]
    assert "@0.01 " in capsys.readouterr().out


def test_a_cell_whose_tuning_failed_waits_and_the_others_do_not(run, stub, capsys):
    stub("if 'Random' in name and '0.003-tune' in name: sys.exit('it broke')")
    assert status_of(run, "--seeds", "1", "--tune", f"{LR}=0.001,0.003") == 1
    out, err = capsys.readouterr()
    assert err.count("failed: Random") == 1
    assert [name for name in names() if name.endswith("seed0")] == [
        f"{row}-model.optimizer.lr=0.001-seed0" for row in ("dense", "JacobianSpectrum-0.9")
    ]
    assert "2 of 3 runs to report are finished" in out


def test_a_grid_along_an_axis_goes_on_with_more_values(run, stub):
    stub()
    run(*ARGS, "--seeds", "1", "--vary", "model.hidden_size=4")
    Path("calls").unlink()
    run(*ARGS, "--seeds", "1", "--vary", "model.hidden_size=4,5")
    assert names() == [f"{row}-model.hidden_size=5-seed0" for row in ("dense", "JacobianSpectrum-0.9", "Random-0.9")]


def test_a_run_without_results_has_failed(run, stub, capsys):
    stub("sys.exit(0)")
    assert status_of(run, "--seeds", "1") == 1
    assert "ended before its fit did" in capsys.readouterr().err


def test_runs_of_other_settings_are_not_mixed(run, stub, refused):
    stub()
    run(*ARGS, "--seeds", "1")
    line = refused(*ARGS, "--seeds", "1", "--trainer.max_epochs", "7")
    assert f"runs in {FOLDER}/Jacobian" in line
    assert f"{FOLDER}/dense-seed0" in line
    assert "give another --output, or delete these folders" in line
    run(*ARGS, "--seeds", "1", "--trainer.max_epochs", "7", "--output", "elsewhere")
    assert Path("elsewhere", "results.csv").exists()


def test_finished_runs_are_kept_where_an_argument_is_spelt_another_way(run, stub, refused):
    stub()
    run(*ARGS, "--seeds", "1", "--vary", "model.hidden_size=6")
    assert "in its other spelling" in refused(*ARGS, "--seeds", "1", "--vary", "model.init_args.hidden_size=6")
    assert (FOLDER / "dense-model.hidden_size=6-seed0" / "result.json").exists()


def test_jobs_run_together_and_share_the_threads(run, stub, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 9)
    # Each of the first two waits for the other.
    stub("wait_for(lambda: len(calls.read_text().splitlines()) >= 2)")
    run(*ARGS, "--seeds", "1", "--jobs", "2")
    assert {threads for _, threads, _ in calls()} == {"4"}
    assert len(calls()) == 3


def test_one_job_runs_alone(run, stub):
    stub("lock = Path('lock'); lock.touch(exist_ok=False); time.sleep(0.2); lock.unlink()")
    run(*ARGS, "--seeds", "1")
    assert len(calls()) == 3


def checkpoint(folder, name="last.ckpt", **content):
    """Writes what a fit leaves that is stopped and could go on."""
    path = folder / "checkpoints" / name
    path.parent.mkdir(exist_ok=True)
    torch.save({"state_dict": {}, EXACT: True} | content, path)
    return path


def stop_within_runs(run, *args, sent=signal.SIGTERM, runs=1):
    """Stops a comparison whose fits hang, after so many have begun."""

    def stop():
        while len(calls()) < runs:
            time.sleep(0.05)
        os.kill(os.getpid(), sent)

    threading.Thread(target=stop, daemon=True).start()
    # Python leaves Ctrl-C ignored where the tests themselves were started so, as in the background of a script.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert status_of(run, *args) == 128 + sent
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_comparison_leaves_no_child_and_goes_on(run, stub, capsys, sent):
    stub("time.sleep(600)")
    stop_within_runs(run, "--seeds", "1", "--jobs", "2", sent=sent, runs=2)
    assert "goes on" in capsys.readouterr().err
    for _, _, pid in calls():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)

    stub()
    run(*ARGS, "--seeds", "1")
    for name in ("dense-seed0", "JacobianSpectrum-0.9-seed0", "Random-0.9-seed0"):
        assert json.loads((FOLDER / name / "result.json").read_text())["metrics"] == {"val/error": 3.0}


@pytest.fixture
def stopped(run, stub):
    """Stops a comparison within its first run, and gives that run's folder."""
    stub("time.sleep(600)")
    stop_within_runs(run, "--seeds", "1")
    stub("metrics['val/error'] = float('--ckpt_path' in sys.argv)")
    return FOLDER / "dense-seed0"


def went_on(folder):
    """Gives the checkpoint that the last fit in a folder was started from, and the number of starts."""
    lines = [line for line in (folder / "log.txt").read_text().splitlines() if line.startswith("python ")]
    return lines[-1].partition(" --ckpt_path ")[2], len(lines)


def test_a_run_that_was_under_way_goes_on_from_its_newest_checkpoint(run, stopped):
    path = checkpoint(stopped)
    os.utime(checkpoint(stopped, "last-v1.ckpt"), (1, 1))
    run(*ARGS, "--seeds", "1")
    assert went_on(stopped) == (str(path), 2)
    assert json.loads((stopped / "result.json").read_text())["metrics"] == {"val/error": 1.0}
    assert went_on(FOLDER / "Random-0.9-seed0") == ("", 1)


@pytest.mark.parametrize(
    "what", ["inexact", "foreign", "damaged", "missing", "code", "vectors", "threads", "half a note", "{}", "[]"]
)
def test_a_run_that_would_not_end_as_if_it_had_not_been_stopped_begins_anew(run, stopped, monkeypatch, capsys, what):
    if what != "missing":
        path = checkpoint(stopped, **({EXACT: False} if what == "inexact" else {}))
    if what == "foreign":
        torch.save({"state_dict": {}}, path)
    if what == "damaged":
        path.write_bytes(path.read_bytes()[:100])
    if what == "half a note":
        note = stopped / "under_way.json"
        note.write_text(note.read_text()[:20])
    if what in ("{}", "[]"):
        (stopped / "under_way.json").write_text(what)
    if what == "code":
        monkeypatch.setattr(runner, "code", lambda: ["another commit"])
    if what == "vectors":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "of another processor")
    if what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    run(*ARGS, "--seeds", "1")
    assert went_on(stopped) == ("", 1)
    assert not (stopped / "checkpoints").exists()
    assert ("dense-seed0 begins anew: it was begun with" in capsys.readouterr().err) == (
        what in ("code", "vectors", "threads")
    )


def test_a_run_under_way_with_other_settings_is_kept(run, stopped, refused):
    path = checkpoint(stopped)
    assert "--output" in refused(*ARGS, "--seeds", "1", "--trainer.max_epochs", "7")
    assert path.exists()


@pytest.mark.slow
def test_a_comparison_that_is_stopped_within_a_fit_ends_as_one_that_is_not(run, tmp_path, capsys):
    args = [*ARGS[:3], "--criteria", "Random", *ARGS[-2:], "--seeds", "1", "--without_dense"]
    args += ["--model.hidden_size", "6", "--trainer.max_epochs", "20", "--trainer.accelerator", "cpu"]
    args += ["--model.dropout", "0.5", "--model.input_dropout", "0.1"]
    run(*args, "--output", "whole")
    name = "Random-0.9-seed0"
    last = Path("parts", name, "checkpoints", "last.ckpt")

    def stop():
        while not last.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(SystemExit):
        run(*args, "--output", "parts")
    run(*args, "--output", "parts")
    assert went_on(Path("parts", name))[0] == str(last)
    whole, parts = (json.loads(Path(folder, name, "result.json").read_text()) for folder in ("whole", "parts"))
    assert len(whole["history"]) == 20
    for key in ("history", "metrics", "validated"):
        assert whole[key] == parts[key]
