"""Strings and data sets of Hugging Face against the same text in files."""

import pytest

from sparse_rnn.data import DataError, TextDataset, TextFiles

LINES = {"train": ["the cat sat", "the cat ran\n", "", "the end"], "val": ["the cat"], "test": ["a cat"]}


def ids(data):
    return [data.vocabulary.get_itos(), *(data.store[split].tolist() for split in data.store.splits)]


@pytest.fixture
def expected(tmp_path):
    for split, lines in LINES.items():
        (tmp_path / f"{split}.txt").write_text("".join(line.rstrip("\n") + "\n" for line in lines))
    return ids(TextFiles(*(tmp_path / f"{split}.txt" for split in LINES)))


def test_strings_dictionaries_and_iterators_are_read_as_files_are(expected, cache):
    assert ids(TextDataset(**LINES)) == expected
    rows = {split: [{"line": line, "id": 3} for line in lines] for split, lines in LINES.items()}
    assert ids(TextDataset(**rows, column="line")) == expected
    data = TextDataset(**{split: iter(lines) for split, lines in LINES.items()})
    data.prepare_data()
    data.setup()
    assert data.corpus() == data.corpus()
    assert ids(data) == expected
    assert len(list(cache.glob("sparse_rnn/datasets/*"))) == 3, "one file a text, and nothing half-written"


def test_options_are_those_of_text_files():
    assert "".join(TextDataset(**LINES, level="char").lexicon.tokenization("ab")) == "ab"
    assert TextDataset(**LINES, min_count=1).vocab_size == TextDataset(**LINES).vocab_size + 3


def test_what_is_no_text_is_named(cache):
    with pytest.raises(DataError, match="train has no column 'text': take one of 'line'"):
        TextDataset([{"line": "a"}]).prepare_data()
    with pytest.raises(DataError, match="val holds a int, not a string"):
        TextDataset(["a b"], [3]).prepare_data()
    with pytest.raises(DataError, match="TextDataset has no text"):
        TextDataset().prepare_data()
    with pytest.raises(DataError, match="The splits are left, right: give some named train"):
        TextDataset.from_splits({"left": [], "right": []})
    assert len(list(cache.glob("sparse_rnn/datasets/*"))) == 1, "of the text that is one"


def test_data_sets_of_hugging_face(expected):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'sparse-rnn[text]'")
    names = {"train": "train", "val": "validation", "test": "test"}
    splits = datasets.DatasetDict({names[split]: datasets.Dataset.from_dict({"text": t}) for split, t in LINES.items()})
    assert ids(TextDataset.from_splits(splits)) == expected
