"""The Reber grammar against an automaton that is written down anew."""

import math
import re
from itertools import islice, product

import numpy as np
import pytest
from embedded_strings import accepts_embedded

from sparse_rnn.data.grammar import (
    GRAMMAR,
    LETTERS,
    accepts,
    best_perplexity,
    distinct_walks,
    embed,
    other_ending,
    spelled,
    substituted,
    walks,
)

# State by state, as in references to Reber (1967); the language by elimination of states.
AUTOMATON = {
    0: {"T": 1, "P": 2},
    1: {"S": 1, "X": 3},
    2: {"T": 2, "V": 4},
    3: {"X": 2, "S": "end"},
    4: {"P": 3, "V": "end"},
}
FROM_2 = "T*V(PXT*V)*(V|PS)"
LANGUAGE = re.compile(f"B(P{FROM_2}|TS*X(S|X{FROM_2}))E")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_what_is_accepted_is_the_language():
    words = ["".join(letters) for length in range(8) for letters in product(LETTERS, repeat=length)]
    accepted = {word for word in words if accepts(f"B{word}E")}
    assert accepted == {word for word in words if LANGUAGE.fullmatch(f"B{word}E")}
    assert 10 < len(accepted) < 100


@pytest.mark.parametrize("string", ["", "B", "E", "BE", "TXS", "BTXS", "TXSE", "BTXSEE", "BTXsE", "BTXSE "])
def test_what_is_no_string_is_rejected(string):
    assert not accepts(string)
    assert not accepts_embedded(string)


def test_walks_take_both_arcs_of_a_state_equally_often(rng):
    taken = {}
    for string in spelled(walks(20_000, rng)):
        state = 0
        for letter in string[1:-1]:
            taken[state, letter] = taken.get((state, letter), 0) + 1
            state = AUTOMATON[state][letter]
        assert state == "end"
    for state, arcs in AUTOMATON.items():
        first, second = (taken[state, letter] for letter in arcs)
        assert abs(first - second) < 4 * math.sqrt(first + second)


def test_distinct_walks_are_those_that_independent_ones_reach_first(rng):
    drawn = list(islice(distinct_walks(rng, shortest=8), 200))
    assert len(set(drawn)) == 200
    assert min(map(len, spelled(drawn))) == 8


def test_other_letters_make_another_language(rng):
    paths = walks(100, rng)
    letters, arcs = "QOMNCAURFD", [(state, letter) for state, to in AUTOMATON.items() for letter in to]
    for string, other in zip(spelled(paths), spelled(paths, letters), strict=True):
        state = 0
        for letter, renamed in zip(string[1:-1], other[1:-1], strict=True):
            assert arcs[letters.index(renamed)] == (state, letter)
            state = AUTOMATON[state][letter]


def test_walks_that_are_too_long_for_an_integer_are_drawn_anew(rng, monkeypatch):
    monkeypatch.setattr("sparse_rnn.data.grammar._LONGEST", 4)
    lengths = {len(string) for string in spelled(walks(500, rng))}
    assert lengths == {5, 6}


def test_a_substitution_changes_one_letter_and_is_rejected(rng):
    for string in spelled(walks(300, rng)):
        changed = substituted(string, rng)
        assert sum(a != b for a, b in zip(changed, string, strict=True)) == 1
        assert changed[0] + changed[-1] == "BE"
        assert set(changed[1:-1]) <= set(LETTERS)
        assert not accepts(changed)


def test_a_substitution_is_none_of_those_taken(rng):
    taken = set()
    for _ in range(12):  # three places, four other letters each, none of them accepted
        taken.add(substituted("BTXSE", rng, taken))
    assert len(taken) == 12


def test_embedded_strings_are_told_by_their_second_letter(rng):
    strings = spelled(walks(500, rng))
    framed = embed(strings, rng)
    assert [string[2:-2] for string in framed] == strings
    assert all(accepts_embedded(string) and not accepts(string) for string in framed)
    assert not any(accepts_embedded(other_ending(string)) for string in framed)
    assert 200 < sum(string[1] == "T" for string in framed) < 300


@pytest.mark.parametrize("embedded", [False, True])
def test_the_best_perplexity_is_the_automatons_own(rng, embedded):
    strings = spelled(walks(20_000, rng))
    bits = sum(len(string) - 2 + embedded for string in strings)  # each arc is a choice between two
    letters = sum(len(string) + 4 * embedded for string in strings)
    assert 2 ** (bits / letters) == pytest.approx(best_perplexity(embedded), rel=2e-3)


def test_the_arcs_are_those_of_the_thesis():
    arcs = [(state, letter) for state, to in AUTOMATON.items() for letter in to]
    assert "".join(letter for _, letter in arcs) == GRAMMAR
