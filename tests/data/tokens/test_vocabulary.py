"""Words and ids; torchtext 0.6.0, where it is installed, is asked the same questions."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_rnn.data.errors import DataError
from sparse_rnn.data.tokens.vocabulary import Vocabulary, as_vocabulary
from sparse_rnn.errors import UsageError

WORDS = ["the", "of", "<unk>", "<eos>"]


@given(st.lists(st.sampled_from(["<unk>", "<eos>", "<", "a", "b", "ä", "zz"])), st.none() | st.integers(1, 9))
def test_words_are_ranked_by_frequency_and_then_by_word(text, vocab_size):
    counts = Counter(text)
    vocabulary = Vocabulary.from_counts(counts, vocab_size)
    kept = sorted(set(text) - {"<unk>"}, key=lambda word: (-counts[word], word))
    kept = kept if vocab_size is None else kept[: vocab_size - 1]
    mapped = Counter({"<unk>": 0}) + Counter(word if word in kept else "<unk>" for word in text)
    mapped.setdefault("<unk>", 0)
    assert vocabulary.get_itos() == sorted(mapped, key=lambda word: (-mapped[word], word))
    assert vocabulary.get_default_index() == vocabulary["<unk>"] == vocabulary["never seen"]


def test_ids_and_words_lead_to_each_other():
    vocabulary = Vocabulary(WORDS)
    assert vocabulary(["of", "<eos>", "of"]) == vocabulary.lookup_indices(["of", "<eos>", "of"]) == [1, 3, 1]
    assert vocabulary.lookup_tokens([1, 3]) == ["of", "<eos>"]
    assert vocabulary.lookup_token(0) == "the"
    assert vocabulary["of"] == vocabulary.get_stoi()["of"] == 1
    assert len(vocabulary) == 4
    assert "of" in vocabulary
    assert "for" not in vocabulary


def test_what_it_hands_out_is_a_copy():
    vocabulary = Vocabulary(WORDS)
    vocabulary.get_itos().clear()
    vocabulary.get_stoi().clear()
    assert vocabulary.get_itos() == WORDS
    assert vocabulary["the"] == 0


def test_other_words_have_the_default_index_or_none():
    vocabulary = Vocabulary(WORDS)
    assert vocabulary.get_default_index() is None
    with pytest.raises(DataError, match="The word 'for' is not in the vocabulary of 4 words, which has no default"):
        vocabulary(["the", "for"])
    vocabulary.set_default_index(0)
    assert vocabulary(["of", "for"]) == [1, 0]
    assert "for" not in vocabulary
    vocabulary.set_default_index(None)
    with pytest.raises(DataError):
        vocabulary["for"]


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_out_of_range_is_refused(index):
    with pytest.raises(IndexError, match=rf"The id {index} is out of range: those of this vocabulary are 0 … 3\."):
        Vocabulary(WORDS).lookup_token(index)
    with pytest.raises(
        UsageError, match=f"The default index {index} is no id|default_index={index}: give a whole number"
    ):
        Vocabulary(WORDS, default_index=index)


def test_a_word_has_one_id():
    with pytest.raises(DataError, match="The word 'of' stands twice"):
        Vocabulary(["the", "of", "of"])


def test_a_vocabulary_keeps_at_least_one_word():
    with pytest.raises(UsageError, match="vocab_size=0"):
        Vocabulary.from_counts({"a": 1}, vocab_size=0)


def test_ours_stays_as_it_is():
    vocabulary = Vocabulary(WORDS)
    assert as_vocabulary(vocabulary) is vocabulary


class NewTorchtext:
    """What ``torchtext.vocab.Vocab`` 0.18, which current PyTorch cannot load, has and we use."""

    def get_itos(self):
        return WORDS

    def get_default_index(self):
        return 2


def test_a_current_torchtext_vocabulary_keeps_ids_and_default():
    vocabulary = as_vocabulary(NewTorchtext())
    assert vocabulary.get_itos() == WORDS
    assert vocabulary["for"] == 2


@pytest.mark.parametrize("specials", [["<unk>", "<pad>"], ["<pad>"]])
def test_an_old_torchtext_vocabulary_keeps_ids_and_default(specials):
    torchtext_vocab = pytest.importorskip("torchtext.vocab", reason="torchtext, an extra, is not installed")
    text = ["the", "of", "the", "for", "the", "of", "<unk>"]
    foreign = torchtext_vocab.Vocab(Counter(text), specials=specials)
    vocabulary = as_vocabulary(foreign)
    assert vocabulary(text) == [foreign.stoi[word] for word in text]
    assert len(vocabulary) == len(foreign)
    if "<unk>" in specials:
        assert vocabulary["zebra"] == foreign.stoi["zebra"]
    else:
        with pytest.raises(DataError):
            vocabulary["zebra"]


def test_anything_else_is_no_vocabulary():
    with pytest.raises(DataError, match="A dict is no vocabulary"):
        as_vocabulary({"the": 0})
