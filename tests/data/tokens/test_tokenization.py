"""Tokens against loops over lines and characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_rnn.data.tokens import Characters, Words

texts = st.text(st.sampled_from("ab é\u3000\u2028\t\r\n€\U0001f600"), max_size=60).map(lambda text: text + "\n")


def words(text: str, marker: str) -> list[str]:
    return [token for line in text[:-1].split("\n") for token in [*line.split(), marker]]


@given(texts, st.sampled_from(["<eos>", "<S>"]))
def test_words_are_between_white_space_and_lines_end_in_the_marker(text, marker):
    assert list(Words(marker)(text)) == words(text, marker)


@given(texts)
def test_characters_are_all_but_carriage_returns(text):
    assert list(Characters()(text)) == [character for character in text if character != "\r"]


@pytest.mark.parametrize("tokenization", [Words(), Words("<S>"), Characters()])
@given(text=texts)
def test_a_cut_after_any_boundary_changes_no_token(tokenization, text):
    raw, whole = text.encode(), list(tokenization(text))
    for match in tokenization.boundary.finditer(raw):
        assert len(match[0]) == 1
        head, tail = raw[: match.end()].decode(), raw[match.end() :].decode()
        assert [*tokenization(head), *tokenization(tail)] == whole


def test_every_line_of_words_ends_at_a_boundary():
    assert [match.end() for match in Words().boundary.finditer(b"ab c\n\nd")] == [3, 5, 6]


def test_the_repr_tells_tokenizations_apart():
    assert len({repr(tokenization) for tokenization in (Words(), Words("<S>"), Characters())}) == 3
    assert repr(Words()) == "Words(end_of_line='<eos>')", "it must not change: stores of before are found by it"
