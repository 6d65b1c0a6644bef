"""One Billion Words on shards made here, and on real ones where they are."""

import os
from pathlib import Path

import pytest
import torch

from sparse_rnn.data import DataError, OneBillionWords, Vocabulary, one_billion_words
from sparse_rnn.errors import UsageError

HELD_OUT = "heldout-monolingual.tokenized.shuffled"
PART = "training-monolingual.tokenized.shuffled/news.en-0000[12]-of-00100"

needs_shards = pytest.mark.skipif("SPARSE_RNN_DATA" not in os.environ, reason="SPARSE_RNN_DATA is not set")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Three training shards of ten sentences, and two held-out ones."""
    monkeypatch.setattr(one_billion_words, "MIRRORS", ("http://127.0.0.1:1/",))
    for shard in (1, 2, 3):
        path = tmp_path / f"training-monolingual.tokenized.shuffled/news.en-{shard:05}-of-00100"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"shard{shard} says number{number} .\n" for number in range(10)))
    for shard in (0, 1):
        path = tmp_path / HELD_OUT / f"news.en.heldout-{shard:05}-of-00050"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"shard{shard} says nothing .\n" * 5)
    return tmp_path


def words(data, split: str, size: int) -> list[str]:
    return data.vocabulary.lookup_tokens(data.store[split][:size])


def test_shards_follow_each_other_and_sentences_end_in_their_mark(folder):
    data = OneBillionWords(train=PART, root=folder)
    data.prepare_data()
    assert words(data, "train", 6) == ["shard1", "says", "number0", ".", "<S>", "shard1"]
    assert data.vocabulary.lookup_token(data.store["train"][50]) == "shard2"
    assert len(data.store["train"]) == 2 * 10 * 5


def test_the_first_held_out_shard_tests_and_the_second_validates(folder):
    data = OneBillionWords(train=PART, root=folder)
    assert words(data, "val", 3) == ["shard1", "says", "<unk>"]
    assert words(data, "test", 3) == ["<unk>", "says", "<unk>"]


def test_the_rarer_words_are_unknown(folder):
    data = OneBillionWords(5, train=PART, root=folder)
    assert data.vocab_size == 5
    assert data.vocabulary.get_itos() == ["<unk>", ".", "<S>", "says", "shard1"]
    assert words(data, "train", 5) == ["shard1", "says", "<unk>", ".", "<S>"]


def test_a_vocabulary_takes_the_place_of_a_size(folder):
    data = OneBillionWords(5, train=PART, root=folder, vocabulary=Vocabulary(["says", ".", "<S>", "<unk>"], 3))
    assert data.vocab_size == 4


def test_fewer_shards_than_published_are_taken_only_by_name(folder):
    with pytest.raises(DataError, match=r"matches 3 of the 99 training shards: unpack .* name the shards"):
        OneBillionWords(root=folder).prepare_data()
    everything = PART.replace("[12]", "?")
    assert len(OneBillionWords(train=everything, root=folder).store["train"]) == 3 * 10 * 5


def test_all_shards_are_taken_unasked(folder):
    for shard in range(4, 100):
        path = folder / f"training-monolingual.tokenized.shuffled/news.en-{shard:05}-of-00100"
        path.write_text("one more sentence\n")
    assert len(OneBillionWords(root=folder).corpus().files["train"]) == 99


def test_without_shards_the_archive_is_asked_for(tmp_path, folder):
    with pytest.raises(DataError, match=r"r13output.tar.gz is missing and could not be downloaded .*: unpack .*\.$"):
        OneBillionWords(root=tmp_path / "empty").prepare_data()


def test_unpacking_that_was_interrupted_goes_on(folder, monkeypatch):
    (folder / one_billion_words.ARCHIVE).touch()
    asked = []

    def unpacked(file, sha256, into, mirrors, advice, is_complete):
        asked.append((file, is_complete()))
        for shard in range(1, 100):
            path = folder / f"training-monolingual.tokenized.shuffled/news.en-{shard:05}-of-00100"
            path.write_text("a sentence .\n")
        assert is_complete()

    monkeypatch.setattr(one_billion_words, "download_archive", unpacked)
    for _ in range(2):
        OneBillionWords(root=folder).prepare_data()
    assert asked == [(one_billion_words.ARCHIVE, False)]


def test_shards_named_that_are_not_there_are_not_downloaded(folder):
    with pytest.raises(DataError, match=r"news.en-9\* matches no file: unpack"):
        OneBillionWords(train="news.en-9*", root=folder).prepare_data()


def sentences(data: OneBillionWords, epoch: int) -> list[str]:
    loader = data.train_dataloader()
    if data.shuffle:
        loader.batch_sampler.sampler.set_epoch(epoch)
    x = torch.cat([x for x, _ in loader], dim=1).flatten().tolist()
    return " ".join(data.vocabulary.lookup_tokens(x)).split(" <S>")


def test_sentences_are_shuffled_by_seed_and_epoch(folder):
    def read(epoch: int, **settings) -> list[str]:
        return sentences(OneBillionWords(train=PART, root=folder, batch_size=3, **settings), epoch)

    plain = read(0)
    orders = [read(epoch, shuffle=True, seed=seed) for epoch, seed in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(order) for order in (plain, *orders)}) == 4
    assert all(sorted(order) == sorted(plain) for order in orders)
    assert read(1, shuffle=True) == orders[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed=-1: give a whole number of at least 0"),
        ({"vocab_size": 0}, "vocab_size=0: give the number of"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_read(settings, message):
    with pytest.raises(UsageError, match=message):
        OneBillionWords(**settings)


def test_a_vocabulary_without_the_mark_cannot_shuffle(folder):
    vocabulary = Vocabulary(["says", ".", "shard0", "shard1", "shard2", "<unk>"], 5)
    data = OneBillionWords(train=PART, root=folder, vocabulary=vocabulary, shuffle=True)
    with pytest.raises(DataError, match="The vocabulary has no <S>"):
        data.train_dataloader()


@needs_shards
def test_real_shards():
    data = OneBillionWords(
        20_000,
        train=f"{HELD_OUT}/news.en.heldout-0001[0-2]-of-00050",
        val=f"{HELD_OUT}/news.en.heldout-00013-of-00050",
        test=f"{HELD_OUT}/news.en.heldout-00000-of-00050",
    )
    data.prepare_data()
    counts = [len(data.store[split]) for split in ("train", "val", "test")]
    assert counts == [161_828 + 160_878 + 156_753, 161_533, 159_658]
    assert data.vocab_size == 20_000
    assert (data.store["train"] == data.vocabulary["<S>"]).sum() == 6_111 + 6_105 + 5_986
