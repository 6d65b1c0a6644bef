import errno
import os
import re
import tempfile

import pytest
import torch
from lightning.pytorch import Trainer

from sparse_rnn import OneShotPruning
from sparse_rnn.callbacks import SparseCheckpoint
from sparse_rnn.callbacks.whole_files import WholeFiles
from sparse_rnn.data import SequentialDigits
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import SequenceClassifier

BEFORE, AFTER = {"state_dict": {"w": torch.zeros(1000)}}, {"state_dict": {"w": torch.ones(1000)}}


@pytest.fixture
def last(tmp_path):
    WholeFiles().save_checkpoint(BEFORE, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def value(path):
    return float(torch.load(path, weights_only=True)["state_dict"]["w"].mean())


def test_an_earlier_checkpoint_stays_until_the_new_one_is_whole(last, monkeypatch):
    def ended(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", ended)
    with pytest.raises(UsageError, match=re.escape(f"{last} cannot be written (No space left on device)")):
        WholeFiles().save_checkpoint(AFTER, last)
    assert value(last) == 0
    monkeypatch.undo()
    WholeFiles().save_checkpoint(AFTER, last)
    assert value(last) == 1
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("callback", [SparseCheckpoint, lambda folder: OneShotPruning(criterion="magnitude")])
def test_no_checkpoint_goes_through_the_folder_of_temporary_files(tmp_path, monkeypatch, callback):
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        callbacks=[callback(tmp_path)],
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    trainer.fit(SequenceClassifier(8, 10, hidden_size=4), SequentialDigits(batch_size=256))
    assert [torch.load(path, weights_only=True)["global_step"] for path in tmp_path.rglob("*.ckpt")]
