import json
import platform

import pytest
import torch
from lightning.pytorch import Trainer

from sparse_rnn.callbacks import IterativePruning
from sparse_rnn.compare.recorder import MetricsRecorder, made_by
from sparse_rnn.data import SequentialDigits
from sparse_rnn.modules import SequenceClassifier


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_last_metrics_the_seconds_and_the_origin_are_written(tmp_path):
    path = tmp_path / "metrics.json"
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, limit_train_batches=2, val_check_interval=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[MetricsRecorder(str(path))],
    )  # fmt: skip
    trainer.fit(SequenceClassifier(8, 10, hidden_size=4), SequentialDigits())
    record = json.loads(path.read_text())
    assert record["metrics"] == {name: pytest.approx(value.item()) for name, value in trainer.callback_metrics.items()}
    assert "val/error" in record["metrics"]
    assert 0 < record["seconds"] < 60
    assert (record["validated"], record["checkpoint"]) == (4, "")
    assert [(at["epoch"], at["step"]) for at in record["history"]] == [(0.5, 1), (1, 2), (1.5, 3), (2, 4)]
    assert len({at["val/loss"] for at in record["history"]}) == 4
    assert record["history"][-1]["val/error"] == record["metrics"]["val/error"]
    assert all(name in ("epoch", "step") or name.startswith("val/") for name in record["history"][0])
    assert record["made_by"] == made_by(torch.device("cpu"))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_history_tells_how_sparse_a_pruned_network_was_at_each_validation(tmp_path):
    path = tmp_path / "metrics.json"
    pruning = IterativePruning(0.9, densities=(0.5,), every=1)
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, limit_train_batches=2, val_check_interval=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=1,
        callbacks=[MetricsRecorder(str(path)), pruning],
    )  # fmt: skip
    model = SequenceClassifier(8, 10, hidden_size=4)
    trainer.fit(model, SequentialDigits())
    history = json.loads(path.read_text())["history"]
    kernels = [model.rnn.weight_ih_l0, model.rnn.weight_hh_l0]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.numel() for kernel in kernels)
    assert [at["sparsity/all"] for at in history] == pytest.approx([0.5, zeros, zeros, zeros])
    assert zeros == pytest.approx(0.9, abs=0.01)


def test_versions_and_machine_are_told():
    told = made_by(torch.device("cpu"))
    assert f"torch {torch.__version__}" in told
    assert f"Python {platform.python_version()}" in told
    assert "CPUs a run" in told
