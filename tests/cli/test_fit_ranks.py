"""The command line on two gloo processes: it ends well, tells once what came of it, and no rank waits for another.

Every collective of both ranks is written down: one that a single rank calls would wait for ever, or disturb a later
one, or raise when the other rank has left.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
from autocast import need_lstm_in_bfloat16

ROOT = Path(__file__).parents[2]
SECONDS = 240

RECORDED = """
import atexit, functools, json, os, sys, torch.distributed as dist
calls = []

def recorded(name, call):
    @functools.wraps(call)
    def record(*args, **kwargs):
        calls.append(name)
        return call(*args, **kwargs)
    return record

for name in ("all_gather", "all_gather_object", "all_reduce", "barrier", "broadcast", "broadcast_object_list",
             "gather", "gather_object", "reduce", "reduce_scatter", "scatter"):
    for module in (dist, dist.distributed_c10d):
        setattr(module, name, recorded(name, getattr(module, name)))

def save():
    with open(f"collectives-{os.environ.get('LOCAL_RANK', 0)}.json", "w") as file:
        json.dump(calls, file)

atexit.register(save)

from sparse_rnn.cli import main
main()
"""

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")

QUICK = [
    *("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"),
    *("--trainer.max_epochs", "-1", "--trainer.max_steps", "6", "--trainer.log_every_n_steps", "1"),
    *("--trainer.val_check_interval", "3", "--trainer.limit_val_batches", "2", "--trainer.limit_train_batches", "6"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
]


def on_two_ranks(folder, *args):
    """Runs a command line and gives the lines of stdout, on which both ranks write."""
    (folder / "recorded.py").write_text(RECORDED)
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    process = subprocess.Popen(
        [sys.executable, "recorded.py", *args], cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the other rank, too
        pytest.fail(f"A rank waits for the other one.\n{process.communicate()[1]}")
    assert process.returncode == 0, err
    assert "Traceback" not in err
    first, second = (json.loads((folder / f"collectives-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert "broadcast_object_list" in first
    return out.splitlines()


def check_summary(lines):
    """The summary is there, and each of its lines once."""
    found = [line for line in lines if line.startswith(("rnn.", "all", "val/", "last", "best", "logs", "TensorBoard"))]
    assert len(found) == len({tuple(line.split()[:2]) for line in found}), lines
    told = {line.split()[0]: line.split()[-1] for line in found}
    assert {"val/loss", "last", "best", "logs", "TensorBoard"} <= set(told)
    assert Path(told["last"]).is_file()
    assert any(line.startswith("rnn.") for line in found)


@pytest.fixture
def text(tmp_path):
    """The arguments of a small text of forty different words."""
    random = np.random.default_rng(0)
    for split, size in {"train": 9000, "val": 400, "test": 50}.items():
        words = [f"w{number}" for number in random.integers(40, size=size)]
        (tmp_path / f"{split}.txt").write_text("\n".join(" ".join(words[i : i + 9]) for i in range(0, size, 9)) + "\n")
    files = [("--data." + split, f"{split}.txt") for split in ("train", "val", "test")]
    return ["--data", "TextFiles", *(word for pair in files for word in pair)]


def documented():
    """The command that README.md gives for several GPUs, behind the name of the program."""
    [line] = [line for line in (ROOT / "README.md").read_text().splitlines() if "--trainer.strategy ddp" in line]
    return shlex.split(line.removeprefix("python -m sparse_rnn"))


# Sizes for a small text.
SMALL = [
    *("--model.vocab_size", "null", "--model.hidden_size", "12", "--model.embedding_size", "6"),
    *("--model.num_samples", "9", "--model.shared_samples", "true", "--pruning.num_samples", "4"),
]


# What else looks at a fit, on the first rank or on all.
WATCHED = [
    *("--trainer.callbacks+", "SparsityMonitor", "--trainer.callbacks.every_n_steps", "2"),
    *("--trainer.callbacks.histograms", "true", "--trainer.callbacks.connection_map", "true"),
    *(
        "--trainer.callbacks+",
        "sparse_rnn.compare.recorder.MetricsRecorder",
        "--trainer.callbacks.path",
        "metrics.json",
    ),
]


@pytest.mark.slow
def test_the_documented_command_ends_well_and_tells_once_what_came_of_it(tmp_path, text):
    """With the pruning callback, the SparseCheckpoint and the SparsityMonitor of that config, and all others."""
    check_summary(on_two_ranks(tmp_path, *documented(), *text, *SMALL, *QUICK, *WATCHED))
    assert json.loads((tmp_path / "metrics.json").read_text())["validated"] == 6


@pytest.mark.slow
def test_it_ends_well_in_bfloat16(tmp_path, text):
    """With the sampled softmax and RowAdam; the sparse engine steps aside."""
    need_lstm_in_bfloat16()
    precise = ["--trainer.precision", "bf16-mixed", "--pruning.engine", "sparse"]
    check_summary(on_two_ranks(tmp_path, *documented(), *text, *SMALL, *QUICK, *precise))


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", ["rigl.yaml", "gradual.yaml", "narang.yaml --pruning.schedule.frequency 2", "lottery.yaml"]
)
def test_what_prunes_in_mid_training_ends_well_too(tmp_path, way):
    args = ["--config", "gru_digits.yaml", "--model.hidden_size", "6", "--config", *f"pruning/{way}".split()]
    check_summary(on_two_ranks(tmp_path, "fit", *args, *QUICK, "--trainer.max_steps", "12"))
