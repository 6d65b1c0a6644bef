"""Commands on a disk that is really full: a file system in memory of a few kilobytes, in a name space of one's own.

No rights are needed for that where the system lets users have such name spaces.
"""

import os
import shutil
import subprocess
import sys

import pytest

# Mounts, leaves so many kilobytes, and runs the command; what is left goes to stdout.
SCRIPT = """
mount -t tmpfs -o size=400k none disk && mkdir disk/cache || exit 77
head -c $((($(stat -f -c %a disk) * $(stat -f -c %S disk) / 1024 - $1) * 1024)) /dev/zero > disk/fill
shift
"$@"
status=$?
find disk -type f
exit $status
"""
QUICK = [
    *("--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"),
    *("--trainer.limit_val_batches", "1", "--trainer.num_sanity_val_steps", "0", "--trainer.log_every_n_steps", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
]
FIT = ["fit", "--config", "gru_digits.yaml", "--pruning.num_samples", "8", *QUICK]
TEXT = ["fit", "--config", "lstm_pydoc.yaml", "--pruning", "null", "--model.hidden_size", "4", *QUICK]
COMPARE = [
    "compare",
    "--config",
    "gru_digits.yaml",
    "--criteria",
    "magnitude",
    "--sparsity",
    "0.9",
    "--seeds",
    "1",
    *QUICK,
]
CASES = {  # how many kilobytes are free, and the command
    "fit, no byte": (0, [*FIT, "--trainer.default_root_dir", "disk/run"]),
    "fit, no checkpoint": (60, [*FIT, "--trainer.default_root_dir", "disk/run"]),
    "store": (20, [*TEXT, "--data", "TextFiles", "--data.train", "text.txt", "--data.val", "text.txt"]),
    "compare": (0, [*COMPARE, "--output", "disk/compare"]),
    "compare, no fit": (40, [*COMPARE, "--output", "disk/compare"]),
    "analyze": (100, ["analyze", "--checkpoint", "last.ckpt", "--output", "disk/report", "--data", "gru_digits.yaml"]),
    "export": (0, ["export", "--checkpoint", "last.ckpt", "--output", "disk/model.safetensors"]),
    "export, onnx": (0, ["export", "--checkpoint", "last.ckpt", "--format", "onnx", "--output", "disk/model.onnx"]),
    "shrink": (0, ["shrink", "--checkpoint", "last.ckpt", "--units", "3", "--output", "disk/small.ckpt"]),
    "shrink, half": (8, ["shrink", "--checkpoint", "last.ckpt", "--units", "3", "--output", "disk/small.ckpt"]),
}


def on_a_small_disk(folder, free, words):
    """Runs words on a disk with so many kilobytes free, and gives status, stderr, and the files that are left there."""
    (folder / "disk").mkdir()
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", str(free), *words],
        cwd=folder, env=os.environ | {"XDG_CACHE_HOME": str(folder / "disk" / "cache")},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    left = [line for line in done.stdout.splitlines() if line.startswith("disk/")]
    return done.returncode, done.stderr, left


@pytest.fixture
def small_disk(tmp_path):
    probe = tmp_path / "probe"
    probe.mkdir()
    if shutil.which("unshare") is None or on_a_small_disk(probe, 0, ["true"])[0] != 0:
        pytest.skip("the system gives no file systems of their own to users")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("free", "words"), CASES.values(), ids=list(CASES))
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(small_disk, jacobian, free, words):
    shutil.copy(jacobian, small_disk / "last.ckpt")
    shutil.copy(jacobian.parents[1] / "config.yaml", small_disk)
    (small_disk / "text.txt").write_text(" ".join(f"w{number % 5000}" for number in range(20_000)))
    status, err, left = on_a_small_disk(small_disk, free, [sys.executable, "-m", "sparse_rnn", *words])
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (status, len(told), "Traceback" in err) == (2, 1, False), err
    assert any(words in told[0] for words in ("No space left", "the disk is full", "0 written"))  # the last is NumPy's
    assert not [name for name in left if name.endswith((".ckpt", ".part", ".npy", ".onnx", ".safetensors", ".html"))]
