import pytest

from sparse_rnn.cli.resolving import resolve_configs
from sparse_rnn.config_files import find_config
from sparse_rnn.errors import MissingFileError, UsageError


@pytest.mark.parametrize(
    "words", [["--config", "gru_mnist.yaml"], ["-c", "gru_mnist.yaml"], ["--config=gru_mnist.yaml"]]
)
def test_a_name_becomes_the_path_of_its_file(words):
    [path] = find_config("gru_mnist.yaml")
    assert resolve_configs(["fit", *words, "--x"]) == ["fit", "--config", path, "--x"]


def test_an_overlay_takes_away_what_configs_before_it_say_of_pruning():
    first, second = find_config("gru_mnist_rigl.yaml")
    assert resolve_configs(["-c", "gru_mnist_rigl.yaml"]) == [
        "--config",
        first,
        "--pruning",
        "null",
        "--config",
        second,
    ]


def test_what_is_missing_is_left_to_the_parser():
    assert resolve_configs(["fit", "--config"]) == ["fit", "--config"]


def test_what_is_no_config_is_refused(tmp_path):
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(UsageError, match=r"empty\.yaml"):
        resolve_configs(["--config", str(tmp_path / "empty.yaml")])
    with pytest.raises(MissingFileError):
        resolve_configs(["--config", "none.yaml"])
