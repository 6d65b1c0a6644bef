"""What ids stand for, through a checkpoint and back."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_rnn.data import DataError, Vocabulary, vocabulary_of_checkpoint
from sparse_rnn.data.tokens import Bytes, Characters, Lexicon, Words
from sparse_rnn.data.tokens.lexicon import lexicon_in
from sparse_rnn.data.tokens.tokenization_state import Elsewhere
from sparse_rnn.errors import MissingFileError


class LowerCase(Words):
    def __call__(self, text):
        return super().__call__(text.lower())


def saved(path, **checkpoint):
    torch.save({"state_dict": {}, **checkpoint}, path)
    return path


words = st.lists(st.text(max_size=4), unique=True, min_size=1, max_size=20)  # line feeds and quotes are words too


@given(words, st.sampled_from([Words(), Words("<S>"), Characters(), Bytes()]), st.sampled_from([None, 0]))
def test_state_and_back_is_the_same(words, tokenization, default):
    lexicon = Lexicon(Vocabulary(words, default), tokenization, unknown=3)
    again = Lexicon.from_state(lexicon.state())
    assert again.vocabulary.get_itos() == words
    assert (again.vocabulary.get_default_index(), again.tokenization, again.unknown) == (default, tokenization, 3)
    assert lexicon.difference(again) is None


def test_a_lone_surrogate_survives():
    assert Lexicon.from_state(Lexicon(Vocabulary(["\udc80"]), Bytes()).state()).vocabulary.get_itos() == ["\udc80"]


def test_a_large_vocabulary_costs_its_bytes_and_no_more(tmp_path):
    vocabulary = Vocabulary([f"word{number}" for number in range(100_000)])
    path = saved(tmp_path / "last.ckpt", TextFiles={"lexicon": Lexicon(vocabulary, Words()).state()})
    letters = sum(map(len, vocabulary.get_itos()))
    assert path.stat().st_size < letters + 5 * len(vocabulary)
    found, tokenization = vocabulary_of_checkpoint(path)
    assert found.get_itos() == vocabulary.get_itos()
    assert tokenization == Words()


def test_differences_are_named():
    base = Lexicon(Vocabulary(["a", "b", "<unk>"], 2), Words())
    others = {
        "tokens are those of Words(end_of_line='<eos>'), not of Characters()": Lexicon(base.vocabulary, Characters()),
        "it has 3 words, not 1": Lexicon(Vocabulary("a"), Words()),
        "word 1 is 'b', not 'c'": Lexicon(Vocabulary(["a", "c", "<unk>"], 2), Words()),
        "unknown words have the id 2, not None": Lexicon(Vocabulary(["a", "b", "<unk>"]), Words()),
    }
    assert {message: base.difference(other) for message, other in others.items()} == {m: m for m in others}


def test_a_tokenization_of_the_users_own_is_named_and_cannot_be_used():
    again = Lexicon.from_state(Lexicon(Vocabulary("a"), LowerCase()).state())
    assert repr(again.tokenization) == repr(LowerCase())
    assert isinstance(again.tokenization, Elsewhere)
    with pytest.raises(DataError, match=r"tokens of .*LowerCase\(end_of_line='<eos>'\), which it cannot hold"):
        again.tokenization("A")


def test_damage_is_noticed():
    state = Lexicon(Vocabulary(["abc"]), Words()).state()
    state["words"][2] += 1
    with pytest.raises(DataError, match=r"vocabulary is damaged .*checksum"):
        Lexicon.from_state(state)
    with pytest.raises(DataError, match="is damaged"):
        Lexicon.from_state({"words": None})
    later = Lexicon(Vocabulary("a"), Words()).state() | {"tokenization": {"class": "Syllables"}}
    with pytest.raises(DataError, match="no tokenization Syllables in this version"):
        Lexicon.from_state(later)


def test_checkpoints_without_one_say_so(tmp_path):
    assert lexicon_in({"state_dict": {}, "callbacks": {}, "epoch": 1}) is None
    with pytest.raises(DataError, match="holds no vocabulary: it was saved before"):
        vocabulary_of_checkpoint(saved(tmp_path / "old.ckpt"))
    with pytest.raises(MissingFileError):
        vocabulary_of_checkpoint(tmp_path / "none.ckpt")


def test_it_travels_to_other_processes():
    lexicon = pickle.loads(pickle.dumps(Lexicon(Vocabulary("ab", 1), Words())))
    assert lexicon.vocabulary(["c"]) == [1]
