"""The English of Python's help()."""

import sys
from pydoc_data.topics import topics

import pytest

from sparse_rnn.data import DataError, PydocTopics
from sparse_rnn.data.pydoc import divide_topics


def text(data: PydocTopics, split: str) -> str:
    return "".join(data.vocabulary.lookup_tokens(data.store[split]))


def test_every_topic_is_in_one_split():
    splits = divide_topics(topics)
    for topic in topics.values():
        assert sum(topic in split for split in splits.values()) == 1
    sizes = {split: len(content) / sum(map(len, splits.values())) for split, content in splits.items()}
    assert sizes["train"] > 0.7
    assert min(sizes["val"], sizes["test"]) > 0.02


def test_the_division_depends_on_the_topics_alone():
    letters = {name: name * 3 for name in "abcdefghijklm"}
    letters["alias"] = letters["b"]
    splits = divide_topics(dict(reversed(letters.items())))
    assert splits == {"val": "aaakkk", "test": "fff", "train": "bbbcccdddeeeggghhhiiijjjlllmmm"}


def test_characters_are_those_of_the_topics():
    data = PydocTopics(level="char")
    data.prepare_data()
    assert text(data, "train").rstrip("\n") == divide_topics(topics)["train"].rstrip("\n")


def test_words_are_those_of_the_topics():
    data = PydocTopics(min_count=1)
    data.prepare_data()
    found = [word for word in data.vocabulary.lookup_tokens(data.store["train"]) if word != "<eos>"]
    assert found == divide_topics(topics)["train"].split()
    assert 5_000 < data.vocab_size < 20_000
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == y.shape == (64, 20)


def test_words_that_occur_once_train_unk():
    often, all_words = PydocTopics(), PydocTopics(min_count=1)
    once = int((all_words.store.counts == 1).sum())
    assert often.vocab_size == all_words.vocab_size - once
    assert often.store.unknown("train") == once


def test_topics_are_written_once(cache):
    data = [PydocTopics() for _ in range(2)]
    for module in data:
        module.prepare_data()
    assert data[0].store.folder == data[1].store.folder
    assert sorted(path.name for path in cache.glob("sparse_rnn/pydoc/*/*")) == ["test.txt", "train.txt", "val.txt"]


def test_a_cache_that_cannot_be_written_is_named(cache):
    (cache / "sparse_rnn").write_text("a file")
    with pytest.raises(DataError, match=r"train.txt could not be written \(Not a directory\): .* XDG_CACHE_HOME"):
        PydocTopics().prepare_data()


def test_a_python_without_topics_is_told_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="This Python has no pydoc_data"):
        PydocTopics().prepare_data()
