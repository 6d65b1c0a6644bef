"""The written files against the words that they were made of."""

import hashlib
import json

import numpy as np
import pytest

from sparse_rnn.data import DataError, Vocabulary
from sparse_rnn.data.tokens import Words, pieces, store_writer
from sparse_rnn.data.tokens.pieces import count, divide
from sparse_rnn.data.tokens.store_writer import sum_counts, write_store

TEXTS = {"train": "the cat and the mat\n" * 20, "val": "the dog\nand the owl\n"}
WORDS = {split: text.replace("\n", " <eos> ").split() for split, text in TEXTS.items()}
VOCABULARY = Vocabulary(["<unk>", "<eos>", "the", "and"], 0)


@pytest.fixture
def splits(tmp_path, monkeypatch):
    """Counted pieces of each split; sizes are small, so that there are several, of several chunks each."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 50)
    monkeypatch.setattr(store_writer, "CHUNK_IDS", 4)
    found = {}
    for split, text in TEXTS.items():
        path = tmp_path / f"{split}.txt"
        path.write_text(text)
        found[split] = divide(path, Words(), tmp_path, split)
        for piece in found[split]:
            count(piece, Words())
    assert len(found["train"]) > 3
    return found


def test_counts_of_pieces_add_up(splits):
    for split, words in WORDS.items():
        assert sum_counts(splits[split]) == {word: words.count(word) for word in words}
    assert sum_counts([]) == {}


def test_ids_are_those_of_the_vocabulary(splits, tmp_path):
    write_store(tmp_path / "store", splits, "Words", VOCABULARY)
    for split, words in WORDS.items():
        ids = np.load(tmp_path / "store" / f"{split}.npy", mmap_mode="r")
        assert ids.dtype == np.int32
        assert ids.tolist() == [VOCABULARY[word] for word in words]


def test_the_vocabulary_is_written_with_the_counts_of_the_training_split(splits, tmp_path):
    write_store(tmp_path / "store", splits, "Words", VOCABULARY)
    written = json.loads((tmp_path / "store" / "vocabulary.json").read_text())
    assert written == {
        "words": VOCABULARY.get_itos(),
        "default_index": 0,
        "counts": [2 * 20, *(WORDS["train"].count(word) for word in VOCABULARY.get_itos()[1:])],  # cats and mats
    }


def test_what_is_returned_and_written_says_what_the_store_is_made_of(splits, tmp_path):
    returned = write_store(tmp_path / "store", splits, "Words of mine", VOCABULARY)
    expected = {
        split: {
            "tokens": len(words),
            "unknown": sum(word not in VOCABULARY for word in words),
            "sources": [
                {
                    "path": str(tmp_path / f"{split}.txt"),
                    "sha256": hashlib.sha256(TEXTS[split].encode()).hexdigest(),
                }
            ],
        }
        for split, words in WORDS.items()
    }
    assert returned == expected
    written = json.loads((tmp_path / "store" / "store.json").read_text())
    assert written == {"version": 1, "tokenization": "Words of mine", "splits": expected}


def test_what_an_interrupted_attempt_has_left_is_removed(splits, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old.npy").touch()
    write_store(tmp_path / "store", splits, "Words", VOCABULARY)
    assert {path.name for path in (tmp_path / "store").iterdir()} == {
        "store.json",
        "vocabulary.json",
        "train.npy",
        "val.npy",
    }


def test_a_word_without_an_id_is_named(splits, tmp_path):
    vocabulary = Vocabulary([*VOCABULARY.get_itos(), "cat", "mat"])
    with pytest.raises(DataError, match="The word 'dog' is not in the vocabulary of 6 words"):
        write_store(tmp_path / "store", splits, "Words", vocabulary)
