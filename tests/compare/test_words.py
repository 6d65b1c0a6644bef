from pathlib import Path

import pytest

from sparse_rnn.compare.words import divided, names_in, path_words

WORDS = ["--data", "A", "--data.x=1", "--dataset.y", "2", "--pruning.seed", "-3", "--data.z", "[1, 2]", "loose"]


@pytest.mark.parametrize(
    ("section", "own"),
    [
        ("data", ["--data", "A", "--data.x=1", "--data.z", "[1, 2]", "loose"]),
        ("pruning", ["--pruning.seed", "-3"]),
        ("model", []),
    ],
)
def test_each_word_goes_with_the_argument_before_it(section, own):
    assert divided(WORDS, section) == (own, [word for word in WORDS if word not in own])


def test_names_are_those_of_either_spelling():
    assert names_in(["--a.init_args.b.init_args.c=--x", "--a.b.c", "value"]) == ["--a.b.c", "--a.b.c"]


def test_ordinary_paths_and_addresses_stay_as_they_are():
    for path in ("compare/a/dense-seed0", "/tmp/a b", "a #b", "C:/x", "s3://bucket/run", "ä"):
        assert path_words("--trainer.logger.save_dir", path) == ("--trainer.logger.save_dir", path)
    assert path_words("--ckpt_path", Path("a", "last.ckpt")) == ("--ckpt_path", "a/last.ckpt")
