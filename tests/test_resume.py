"""The parts together: a pruned fit of our own model and data, stopped in the middle of an epoch and resumed."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from sparse_rnn import OneShotPruning
from sparse_rnn.data import SequentialDigits
from sparse_rnn.modules import SequenceClassifier


def fit(path, steps, ckpt_path=None):
    seed_everything(0)
    model, pruning = SequenceClassifier(8, 10, hidden_size=12), OneShotPruning(sparsity=0.9)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=[pruning],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=path,
    )
    trainer.fit(model, SequentialDigits(batch_size=64), ckpt_path=ckpt_path)
    return trainer, model, pruning


@pytest.mark.parametrize("stop", [7, 20, 33])  # an epoch has 20 steps
def test_a_run_stopped_anywhere_and_resumed_equals_the_unbroken_one(tmp_path, stop):
    _, unbroken, first = fit(tmp_path, 45)
    trainer, *_ = fit(tmp_path, stop)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    _, resumed, second = fit(tmp_path, 45, ckpt_path=tmp_path / "stopped.ckpt")
    assert first.masks.digest() == second.masks.digest()
    for (name, a), (_, b) in zip(unbroken.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
