"""Shuffled sentences against lists of pieces."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_rnn.data.loaders import SentenceShuffle, ShuffledText, sentences
from sparse_rnn.errors import UsageError

MARK = 0


def pieces_of(tokens) -> list[list[int]]:
    """What lies before the first mark, and then from each mark up to the next."""
    pieces: list[list[int]] = [[]]
    for token in tokens:
        if token == MARK:
            pieces.append([])
        pieces[-1].append(int(token))
    return pieces


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_text_in_another_order_is_its_pieces_joined(pieces, random):
    order = list(range(len(pieces)))
    random.shuffle(order)
    expected = [token for number in order for token in pieces[number]]
    cuts = np.cumsum([0, *map(len, pieces)])
    text = ShuffledText(np.array(sum(pieces, []), np.int64), cuts, np.array(order))
    assert len(text) == len(expected)
    for start in range(len(expected)):
        for stop in range(start + 1, len(expected) + 3):
            assert text[start:stop].tolist() == expected[start:stop]


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@given(tokens=st.lists(st.integers(0, 2), min_size=1, max_size=60), epoch=st.integers(0, 5))
def test_every_piece_comes_once_and_the_ends_stay(chunk, tokens, epoch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentences, "CHUNK", chunk)
        shuffle = SentenceShuffle(np.array(tokens), MARK, (7,))
        shuffle.set_epoch(epoch)
        found, expected = pieces_of(shuffle.draw()[:]), pieces_of(tokens)
    assert sorted(found) == sorted(expected)
    assert (found[0], found[-1]) == (expected[0], expected[-1])


def text() -> np.ndarray:
    return np.concatenate([[MARK, number] for number in range(1, 51)])


def drawn(seed: tuple[int, ...], epoch: int) -> tuple[int, ...]:
    shuffle = SentenceShuffle(text(), MARK, seed)
    shuffle.set_epoch(epoch)
    return tuple(shuffle.draw()[:].tolist())


def test_every_integer_of_the_seed_and_the_epoch_decide_the_order():
    orders = {(seed, epoch): drawn(seed, epoch) for seed in ((0, 0), (0, 1), (1, 0)) for epoch in (0, 1)}
    assert len(set(orders.values())) == 6
    assert tuple(text().tolist()) not in orders.values()
    assert drawn((0, 1), 1) == orders[(0, 1), 1]


def test_an_order_that_was_drawn_stays_when_the_epoch_changes():
    shuffle = SentenceShuffle(text(), MARK, (0,))
    first = shuffle.draw()
    before = first[:].tolist()
    shuffle.set_epoch(1)
    assert first[:].tolist() == before != shuffle.draw()[:].tolist()


def test_orders_are_alike():
    """Each of three sentences between the ends comes first about equally often; the bound is of five deviations."""
    shuffle = SentenceShuffle(np.array([MARK, 1, MARK, 2, MARK, 3, MARK]), MARK, (0,))
    firsts = []
    for epoch in range(900):
        shuffle.set_epoch(epoch)
        firsts.append(int(shuffle.draw()[1:2][0]))
    assert np.bincount(firsts)[1:] == pytest.approx(300, abs=5 * (900 * 2 / 9) ** 0.5)


def test_a_negative_seed_is_refused():
    with pytest.raises(UsageError, match="seed=-1: give a whole number of at least 0"):
        SentenceShuffle(text(), MARK, (3, -1))
