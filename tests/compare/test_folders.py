from glob import glob
from pathlib import Path

import pytest

from sparse_rnn.compare.folders import named

ALL = ["dense-seed0", "both-0.5-seed0", "both-0.9-seed0", "hidden-0.5-seed0", "Random-0.5-seed0"]
ALL += ["Random-shuffled-0.5-seed0", "a[1]-seed0", "a[1]-seed1"]


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (["both-0.9-seed0"], "runs/both-0.9-seed0"),
        (["both-0.9-seed0", "both-0.5-seed0"], "runs/both-0.*-seed0"),
        (["both-0.9-seed0", "both-0.5-seed0", "hidden-0.5-seed0"], "runs/both-0.*-seed0, runs/hidden-0.5-seed0"),
        (["a[1]-seed0", "a[1]-seed1"], "runs/a[[]1]-seed*"),
    ],
)
def test_patterns_stand_for_many(chosen, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ALL:
        Path("runs", name).mkdir(parents=True)
    assert named([Path("runs", name) for name in chosen]) == text
    assert sorted(path for pattern in text.split(", ") for path in glob(pattern)) == sorted(
        f"runs/{name}" for name in chosen
    )


def test_a_pattern_that_matches_another_folder_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("both-0.1-seed0", "both-0.5-seed0", "both-0.9-seed0"):
        Path("runs", name).mkdir(parents=True)
    assert named([Path("runs", "both-0.1-seed0"), Path("runs", "both-0.9-seed0")]) == (
        "runs/both-0.1-seed0, runs/both-0.9-seed0"
    )
