import pytest

from sparse_rnn.cli.named import class_of, option_of, our_classes, sections_of
from sparse_rnn.modules import SequenceClassifier


@pytest.mark.parametrize(
    ("word", "option"),
    [("--model.cell=lstm", "--model.cell"), ("--model.cell", "--model.cell"), ("lstm", ""), ("a=--b", ""), ("-c", "")],
)
def test_an_option_is_named_with_or_without_its_value(word, option):
    assert option_of(word) == option


def test_the_last_config_says_what_a_section_is_and_overlays_leave_the_others():
    words = ["fit", "--config", "gru_digits.yaml", "-c", "pruning/gradual.yaml"]
    sections = sections_of(words)
    classes = {name: section["class_path"].rpartition(".")[2] for name, section in sections.items()}
    assert classes == {"model": "SequenceClassifier", "data": "SequentialDigits", "pruning": "GradualPruning"}
    assert sections_of([*words[:1], f"--config={words[2]}"])["pruning"] != sections["pruning"]
    assert set(sections_of(["fit"]).values()) == {None}


@pytest.mark.parametrize("path", ["SequenceClassifier", "sparse_rnn.modules.classifier.SequenceClassifier"])
def test_a_class_is_found_by_its_path_and_one_of_ours_by_its_name(path):
    assert class_of(path) is SequenceClassifier
    assert path.rpartition(".")[2] in our_classes()


@pytest.mark.parametrize("path", ["SequenceClasifier", "no_such_module.Model", "sparse_rnn.modules.recurrent_layer"])
def test_what_is_no_class_is_none(path):
    assert class_of(path) is None
