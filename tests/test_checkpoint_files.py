"""Checkpoints as they lie in their files, and other files."""

from pathlib import Path

import pytest
import torch

from sparse_rnn.checkpoint_files import load_checkpoint, saved_step
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


def nested(levels, width=1):
    found = []
    for _ in range(levels):
        found = [found] * width
    return found


@pytest.mark.parametrize("place", ["loops", "callbacks", "hyper_parameters", "other"])
@pytest.mark.parametrize("more", [nested(150), nested(30, width=10)], ids=["deep", "billions"])
def test_what_no_walk_comes_to_the_end_of_is_refused(tmp_path, place, more):
    torch.save({"state_dict": {}, place: {"more": more}}, tmp_path / "odd.ckpt")
    with pytest.raises(UsageError, match=r"odd\.ckpt is damaged: it contains itself, or has more than 100 levels"):
        load_checkpoint(tmp_path / "odd.ckpt")


def test_parts_may_be_shared_and_lie_as_deep_as_lightning_s_do(tmp_path):
    shared = [1, 2]
    torch.save(
        {"state_dict": {}, "loops": {"a": shared, "b": nested(20, width=1), "c": shared}}, tmp_path / "last.ckpt"
    )
    assert load_checkpoint(tmp_path / "last.ckpt")["loops"]["c"] == shared


def test_a_name_that_no_file_can_have_takes_one_sentence():
    with pytest.raises(UsageError, match="cannot be read: File name too long"):
        load_checkpoint("n" * 300)


def test_a_step_is_read_without_the_weights(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"weight": torch.ones(2)}, "global_step": 7}, path)
    monkeypatch.setattr("sparse_rnn.checkpoint_files._check_archive", None)  # it reads all of a file
    assert saved_step(path) == 7
    path.write_bytes(path.read_bytes()[:100])
    assert [saved_step(place) for place in (path, tmp_path, "", "s3://bucket/last.ckpt")] == [None] * 4
