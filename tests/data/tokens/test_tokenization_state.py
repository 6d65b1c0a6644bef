"""Tokenizations in checkpoints: tests/data/tokens/test_lexicon.py has those of the user's own."""

import pytest

from sparse_rnn.data.tokens import Bytes, Characters, Words
from sparse_rnn.data.tokens.tokenization_state import Elsewhere, tokenization_from, tokenization_state


@pytest.mark.parametrize("tokenization", [Words(), Words("<S>"), Characters(), Bytes()], ids=repr)
def test_state_and_back_is_the_same(tokenization):
    state = tokenization_state(tokenization)
    assert all(isinstance(value, str) for value in state.values()), "weights_only=True reads primitives"
    assert tokenization_from(state) == tokenization


def test_what_cannot_be_built_keeps_its_name():
    state = tokenization_state(Elsewhere("LowerCase()"))
    assert repr(tokenization_from(state)) == "LowerCase()"
    assert Elsewhere("LowerCase()").join(["a", "b"]) == "a b"
