import sys
from pathlib import Path

import pytest


def test_fit_ends_with_a_summary(fitted, tmp_path):
    out, checkpoint = fitted()
    summary = dict(line.split(maxsplit=1) for line in out.splitlines() if line.startswith(("val/", "logs", "Tensor")))
    assert 0 <= float(summary["val/acc"]) <= 1
    assert float(summary["val/error"]) == pytest.approx(100 * (1 - float(summary["val/acc"])), abs=0.1)
    assert float(summary["val/loss"]) > 0
    run = tmp_path / "lightning_logs" / "version_0"
    assert Path(summary["logs"]) == run
    assert summary["TensorBoard"] == f"{sys.executable} -m tensorboard.main --logdir {run}"
    assert str(checkpoint) in out
    for kernel, gate in [("ih", "r"), ("ih", "z"), ("ih", "n"), ("hh", "r"), ("hh", "z"), ("hh", "n")]:
        assert any(line.split()[:2] == [f"rnn.weight_{kernel}_l0", gate] for line in out.splitlines())
    assert list(run.glob("events.out.tfevents.*"))
    assert (run / "config.yaml").is_file()
