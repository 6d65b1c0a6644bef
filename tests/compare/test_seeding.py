import pytest

from sparse_rnn.compare.seeding import data_takes_seed
from sparse_rnn.config_files import find_config

DIGITS = find_config("gru_digits.yaml")


def test_images_take_a_seed_and_running_text_does_not():
    assert data_takes_seed(DIGITS, [])
    assert not data_takes_seed(find_config("lstm_wikitext2.yaml"), [])


def test_a_later_config_and_the_command_line_choose_other_data(tmp_path):
    config = tmp_path / "other.yaml"
    config.write_text("data: {class_path: WikiText2}\n")
    assert not data_takes_seed((*DIGITS, str(config)), [])
    assert not data_takes_seed(DIGITS, ["--data", "WikiText2"])
    assert data_takes_seed((*DIGITS, str(config)), ["--data=SequentialMNIST", "--trainer.max_epochs", "2"])


def test_options_laid_over_the_same_data_change_nothing(tmp_path):
    config = tmp_path / "larger.yaml"
    config.write_text("data: {init_args: {batch_size: 8}}\n")
    assert data_takes_seed((*DIGITS, str(config)), ["--data.batch_size", "4"])


@pytest.mark.parametrize(
    "words",
    [
        ["--data", "{class_path: SequentialDigits}"],
        ["--data", "SequentialDigits"],
        ["--data.class_path", "SequentialDigits"],
        ["--data", "data.yaml"],
        ["--data=SequentialDigits", "--data.batch_size", "4"],
    ],
)
def test_data_that_the_command_line_names_in_whatever_way_take_their_seed(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.yaml").write_text("model: null\n")
    (tmp_path / "data.yaml").write_text("class_path: SequentialDigits\n")
    assert data_takes_seed(["none.yaml"], words)


@pytest.mark.parametrize("first", ["data: SequentialDigits", "data: {class_path: SequentialDigits}"])
def test_a_bare_name_may_get_options_from_a_later_config(first, tmp_path):
    configs = [tmp_path / "first.yaml", tmp_path / "later.yaml"]
    configs[0].write_text(first)
    configs[1].write_text("data: {init_args: {batch_size: 4}}")
    assert data_takes_seed([str(config) for config in configs], [])


@pytest.mark.parametrize("data", ["{init_args: {batch_size: 4}}", "[1]", "{init_args: [1]}", "3"])
def test_data_that_cannot_be_read_are_left_to_the_fits(data, tmp_path):
    config = tmp_path / "odd.yaml"
    config.write_text(f"data: {data}")
    assert not data_takes_seed([str(config)], [])
    data_takes_seed([str(config), *DIGITS], [])
    data_takes_seed([*DIGITS, str(config)], [])


def test_no_data_or_unknown_ones_have_none(tmp_path):
    config = tmp_path / "none.yaml"
    config.write_text("model: null\n")
    assert not data_takes_seed((str(config),), [])
    config.write_text("data: {class_path: Nothing}\n")
    assert not data_takes_seed((str(config),), [])
