import os
import sys

import pytest
import torch
from torch import nn

from sparse_rnn import SparseCheckpoint
from sparse_rnn.callbacks import PredictionFile
from sparse_rnn.checkpoints import read
from sparse_rnn.config_files import find_config
from sparse_rnn.data import (
    Enwik8,
    OneBillionWords,
    PennTreebank,
    SequentialMNIST,
    Text8,
    TextFiles,
    WikiText2,
    WikiText103,
)
from sparse_rnn.data.download import data_folder
from sparse_rnn.engine import load, save
from sparse_rnn.engine.onnx_files import export_onnx, onnx_session
from sparse_rnn.errors import UsageError
from sparse_rnn.paths import check_file_place, check_place

S3 = "s3://bucket/x"
LOCAL = {kind.__name__: lambda kind=kind: kind(root=S3) for kind in (
    Enwik8, OneBillionWords, PennTreebank, SequentialMNIST, Text8, WikiText2, WikiText103
)} | {
    "train": lambda: TextFiles(train=S3),
    "a pattern": lambda: OneBillionWords(val=f"{S3}/*.txt"),
    "subwords": lambda: TextFiles(subwords=S3),
    "the variable": lambda: data_folder("mnist", None),
    "save": lambda: save(nn.GRU(2, 3), S3),
    "load": lambda: load(S3),
    "export": lambda: export_onnx(nn.GRU(2, 3), torch.zeros(1, 1, 2), S3),
    "ONNX": lambda: onnx_session(S3),
    "a config": lambda: find_config(S3),
    "a checkpoint with its config": lambda: read(S3),
}  # fmt: skip
SERVED = {
    "checkpoints": lambda: SparseCheckpoint(dirpath=S3),
    "predictions": lambda: PredictionFile(path=S3),
    "a vocabulary": lambda: TextFiles(vocabulary=S3),
}


@pytest.mark.parametrize("give", LOCAL.values(), ids=list(LOCAL))
def test_a_place_on_this_machine_is_no_address(give, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARSE_RNN_DATA", S3)
    monkeypatch.setattr("sparse_rnn.engine.onnx_files._onnxruntime", object)
    with pytest.raises(UsageError, match=r"^s3://bucket/x.* is an address: "):
        give()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("give", SERVED.values(), ids=list(SERVED))
def test_an_address_needs_its_package(give, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UsageError, match=r"s3://bucket/x cannot be re.*Install s3fs to access S3"):
        give()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_to_be_written_to_is_told(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="closed is no folder to write to"):
        check_place("--output", tmp_path / "closed" / "new" / "report")


def test_a_place_for_a_file_is_checked_without_making_anything(tmp_path):
    (tmp_path / "file").touch()
    check_file_place("--output", tmp_path / "file")
    check_file_place("--output", tmp_path / "new" / "deeper" / "file")
    with pytest.raises(UsageError, match="it is a folder"):
        check_file_place("--output", tmp_path)
    with pytest.raises(UsageError, match="file is no folder to write to"):
        check_file_place("--output", tmp_path / "file" / "new" / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
