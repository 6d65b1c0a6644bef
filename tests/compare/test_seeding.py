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


def test_no_data_or_unknown_ones_have_none(tmp_path):
    config = tmp_path / "none.yaml"
    config.write_text("model: null\n")
    assert not data_takes_seed((str(config),), [])
    config.write_text("data: {class_path: Nothing}\n")
    assert not data_takes_seed((str(config),), [])
