import errno
import os
import tempfile
from pathlib import Path

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


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
def test_what_ends_the_writing_leaves_the_earlier_file(last, step, error, monkeypatch):
    def ended(*args):
        raise error

    monkeypatch.setattr(os, step, ended)
    kind = UsageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(kind) as caught:
        WholeFiles().save_checkpoint(AFTER, last)
    if kind is UsageError:
        assert str(caught.value).startswith(f"{last} cannot be written (No space left on device)")
    monkeypatch.undo()
    assert value(last) == 0
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_kill_at_any_call_leaves_a_whole_file(last):
    killed = 0
    for owner, name in ((Path, "open"), (os, "fsync"), (os, "replace")):
        child = os.fork()
        if child == 0:
            setattr(owner, name, lambda *args, **options: os.kill(os.getpid(), 9))
            WholeFiles().save_checkpoint(AFTER, last)
            os._exit(0)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert value(last) == 0
    assert killed == 3
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
def test_a_pipe_keeps_its_place(tmp_path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    with pytest.raises(UsageError, match="it is a folder, a device or a pipe"):
        WholeFiles().save_checkpoint(AFTER, tmp_path / "pipe.ckpt")
    assert [(path.name, path.is_fifo()) for path in tmp_path.iterdir()] == [("pipe.ckpt", True)]
