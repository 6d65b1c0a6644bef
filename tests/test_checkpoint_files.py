"""Checkpoints as they lie in their files, and other files."""

from pathlib import Path

import pytest
import torch

from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.errors import MissingFileError, UsageError

AN_ARCHIVE = b"PK\5\6" + bytes(18)  # an empty zip, which torch.save's files are


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no checkpoint", "is no checkpoint: torch.save did not write it"),
        (b"", "is no checkpoint: torch.save did not write it"),
        (AN_ARCHIVE, "is no checkpoint that PyTorch reads"),
        ({"weights": torch.ones(1)}, "it is a bare state_dict"),
        (torch.ones(2), "it has no state_dict"),
        ({"state_dict": {}, "code": Path("x")}, "weights_only=True"),
    ],
)
def test_another_file_takes_one_sentence(content, said, tmp_path):
    path = tmp_path / "wrong.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UsageError, match=said) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"no checkpoint .*none\.ckpt"):
        load_checkpoint(tmp_path / "none.ckpt")


def test_a_checkpoint_is_what_was_saved(tmp_path):
    torch.save({"state_dict": {"weight": torch.ones(2)}, "epoch": 3}, tmp_path / "last.ckpt")
    checkpoint = load_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint["epoch"] == 3
    assert checkpoint["state_dict"]["weight"].tolist() == [1, 1]
