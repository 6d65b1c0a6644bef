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

ARGS = ["compare", "--config", "gru_digits.yaml", "--criteria", "JacobianSpectrum,Random", "--sparsity", "0.9"]
FOLDER = Path("compare/gru_digits")

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
path.write_text(json.dumps(record))
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Stands a script that behaves as told in for the fits."""
    python = sys.executable

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
def test_a_grid_of_fits_on_digits(run, capsys):
    settings = ["--seeds", "1", "--jobs", "2", "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "3"]
    settings += ["--trainer.accelerator", "cpu", "--model.hidden_size", "6", "--trainer.log_every_n_steps", "1"]
    settings += ["--pruning.num_samples", "8", "--pruning.criterion.horizon", "2"]  # Random has no horizon

    assert status_of(run, *settings) == 1
    out, err = capsys.readouterr()
    assert err.count("failed: Random-0.9-seed0") == 1
    assert "horizon" in err
    assert str(FOLDER / "Random-0.9-seed0" / "log.txt") in err

    with (FOLDER / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines] == ["dense", "JacobianSpectrum"]
    for line, name in zip(lines, ("dense-seed0", "JacobianSpectrum-0.9-seed0"), strict=True):
        [checkpoint] = (FOLDER / name).rglob("last.ckpt")
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        kernels = torch.cat([value.flatten() for key, value in state.items() if key.startswith("rnn.weight")])
        assert line["checkpoint"].endswith(str(checkpoint))
        assert int(line["validated"]) == torch.load(checkpoint, weights_only=True)["global_step"] == 6
        assert kernels.count_nonzero() == round((1 - float(line["sparsity"])) * len(kernels))
        assert float(line["seconds"]) > 0
        assert f"{float(line['val/error']):.2f}" in out
    assert "failed" in out
    text = (FOLDER / "results.md").read_text()
    assert "--pruning.criterion.horizon 2" in text
    assert f"torch {torch.__version__}" in text
    assert (FOLDER / "results.png").stat().st_size > 1000

    run(*ARGS, *settings, "--criteria", "JacobianSpectrum")  # finished, all of it
    assert "failed" not in capsys.readouterr().out


def test_finished_runs_are_skipped_and_failed_ones_start_anew(run, stub, capsys):
    stub("if 'Random' in name: Path(path.parent, 'half').touch(); print('it broke'); sys.exit(3)")
    assert status_of(run, "--seeds", "1") == 1
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


def test_a_run_that_says_nothing_of_validation_has_failed(run, stub, capsys):
    stub("metrics = {'train/loss': 1.0}")
    assert status_of(run, "--seeds", "1") == 1
    assert "none of val/error, val/ppl, val/loss" in capsys.readouterr().err
    stub("sys.exit(0)")
    assert status_of(run, "--seeds", "1") == 1
    assert "ended before its fit did" in capsys.readouterr().err


def test_runs_of_other_settings_are_not_mixed(run, stub, refused):
    stub()
    run(*ARGS, "--seeds", "1")
    line = refused(*ARGS, "--seeds", "1", "--trainer.max_epochs", "7")
    assert "dense-seed0" in line
    assert "--output" in line
    run(*ARGS, "--seeds", "1", "--trainer.max_epochs", "7", "--output", "elsewhere")
    assert Path("elsewhere", "results.csv").exists()


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


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_comparison_leaves_no_child_and_goes_on(run, stub, capsys, sent):
    stub("time.sleep(600)")

    def stop():
        while len(calls()) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), sent)

    threading.Thread(target=stop, daemon=True).start()
    # Python leaves Ctrl-C ignored where the tests themselves were started so, as in the background of a script.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert status_of(run, "--seeds", "1", "--jobs", "2") == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "goes on" in capsys.readouterr().err
    for _, _, pid in calls():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)

    stub()
    run(*ARGS, "--seeds", "1")
    for name in ("dense-seed0", "JacobianSpectrum-0.9-seed0", "Random-0.9-seed0"):
        assert json.loads((FOLDER / name / "result.json").read_text())["metrics"] == {"val/error": 3.0}
