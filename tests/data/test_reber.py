"""Strings of the Reber grammar and those that are none, against the numbers of the thesis and the automaton."""

from collections import Counter
from functools import cache

import pytest
import torch
from embedded_strings import accepts_embedded
from torch.nn.utils.rnn import pad_packed_sequence

from sparse_rnn.data import ReberStrings
from sparse_rnn.data.grammar import LETTERS, accepts
from sparse_rnn.data.reber import RENAMINGS
from sparse_rnn.errors import UsageError

KINDS = [(negatives, False) for negatives in ("renamed", "in_alphabet", "length_matched", "one_substitution")]
KINDS += [("in_alphabet", True), ("one_substitution", True)]
ALPHABET = {*LETTERS, *"BE"}


@cache
def generated(negatives, embedded=False, seed=1):
    strings, labels = ReberStrings(negatives=negatives, embedded=embedded, seed=seed).strings()
    valid = [string for string, label in zip(strings, labels, strict=True) if label]
    return valid, [string for string, label in zip(strings, labels, strict=True) if not label]


@pytest.mark.parametrize(("negatives", "embedded"), KINDS)
def test_half_is_accepted_by_the_grammar_and_half_is_not(negatives, embedded):
    valid, invalid = generated(negatives, embedded)
    assert len(valid) == len(invalid) == 12_500
    assert len({*valid, *invalid}) == 25_000
    accepted = accepts_embedded if embedded else accepts
    assert all(map(accepted, valid))
    assert not any(map(accepted, invalid))
    assert all(string[0] + string[-1] == "BE" for string in (*valid, *invalid))
    assert min(map(len, (*valid, *invalid))) == 11 + 4 * embedded


def test_lengths_and_shares_are_those_of_the_thesis():
    valid, invalid = generated("renamed")
    assert sum(map(len, valid)) / 12_500 == pytest.approx(23.6, abs=0.1)
    assert sum(map(len, invalid)) / 12_500 == pytest.approx(18.7, abs=0.15)
    assert sum(not set(string) <= ALPHABET for string in invalid) == 7_000
    assert sum(RENAMINGS.values()) == 12_500


def test_in_the_alphabet_no_letter_gives_a_string_away():
    _, invalid = generated("in_alphabet")
    assert set().union(*invalid) == ALPHABET


def test_matched_lengths_tell_nothing():
    for negatives in ("length_matched", "one_substitution"):
        valid, invalid = generated(negatives)
        assert Counter(map(len, valid)) == Counter(map(len, invalid))
        assert set().union(*invalid) == ALPHABET


def test_one_substitution_is_one_letter_from_a_valid_string():
    valid, invalid = (set(strings) for strings in generated("one_substitution"))
    for string in list(invalid)[:300]:
        near = (string[:at] + letter + string[at + 1 :] for at in range(1, len(string) - 1) for letter in LETTERS)
        assert any(other in valid for other in near)


def test_embedded_one_substitution_is_told_by_the_letter_before_the_last_alone():
    valid, invalid = generated("one_substitution", embedded=True)
    assert {string[:-2] for string in valid} == {string[:-2] for string in invalid}
    assert all(string[1] != string[-2] for string in invalid)
    assert all(accepts(string[2:-2]) for string in invalid)


def share_with_a_new_run(negatives, letters, embedded=False):
    """The share of invalid strings with so many letters in a row that no valid string has."""
    valid, invalid = generated(negatives, embedded)
    seen = {string[at : at + letters] for string in valid for at in range(len(string) - letters + 1)}
    told = (any(s[at : at + letters] not in seen for at in range(len(s) - letters + 1)) for s in invalid)
    return sum(told) / len(invalid)


@pytest.mark.slow
def test_a_few_letters_in_a_row_tell_of_all_tasks_but_the_embedded_one():
    assert share_with_a_new_run("one_substitution", 2) == pytest.approx(0.77, abs=0.01)
    assert share_with_a_new_run("length_matched", 2) == pytest.approx(0.73, abs=0.01)
    for negatives in ("renamed", "in_alphabet", "length_matched", "one_substitution"):
        assert share_with_a_new_run(negatives, 3) == 1
    assert share_with_a_new_run("one_substitution", 5, embedded=True) == 0


def test_the_seed_decides_the_strings():
    one, again, other = (ReberStrings("in_alphabet", seed=seed).strings() for seed in (1, 1, 2))
    assert one == again
    assert one[0] != other[0]
    assert 6_000 < sum(one[1][:12_500]) < 6_500


@pytest.fixture(scope="module")
def data():
    return ReberStrings("in_alphabet", seed=1, batch_size=16)


def decoded(x, lengths):
    return ["".join(map(chr, row[:length])) for row, length in zip(x.tolist(), lengths.tolist(), strict=True)]


def test_the_splits_hold_every_string_once_with_its_label(data):
    strings, labels = data.strings()
    assert [len(split) for split in data.splits] == [18_750, 3_125, 3_125]
    pairs = [
        pair
        for split in data.splits
        for pair in zip(decoded(*split.tensors[:2]), split.tensors[2].tolist(), strict=True)
    ]
    assert sorted(pairs) == sorted(zip(strings, labels, strict=True))


def test_every_seed_divides_its_strings_in_the_same_way(monkeypatch):
    numbered = [f"B{number}E" for number in range(25_000)], [1] * 25_000
    monkeypatch.setattr(ReberStrings, "strings", lambda data: numbered)
    first, other = (ReberStrings(seed=seed).splits for seed in (0, 1))
    assert all(torch.equal(a.tensors[0], b.tensors[0]) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("negatives", "share"), [("one_substitution", 0.2), ("renamed", 0.4)])
def test_what_is_drawn_with_one_seed_is_partly_drawn_with_another(negatives, share):
    tuned, reported = (ReberStrings(negatives, seed=seed).splits for seed in (1000, 0))
    seen, val = ({*decoded(*split.tensors[:2])} for split in (tuned.train, reported.val))
    assert len(seen & val) / len(val) == pytest.approx(share, abs=0.05), "docs/compare.md says it"


def test_batches_are_packed_and_in_order(data):
    x, y = next(iter(data.val_dataloader()))
    codes, lengths = pad_packed_sequence(x, batch_first=True)
    rows, own, labels = (tensor[:16] for tensor in data.splits.val.tensors)
    assert decoded(codes, lengths) == decoded(rows, own)
    assert torch.equal(y, labels)
    assert x.data.dtype == torch.int64


def test_padded_as_the_original_a_batch_is_as_long_as_its_longest_string(data):
    padded = ReberStrings("in_alphabet", padding="batch", seed=1, batch_size=16)
    x, y = next(iter(padded.val_dataloader()))
    rows, lengths, labels = (tensor[:16] for tensor in data.splits.val.tensors)
    assert x.shape == (16, lengths.max())
    assert torch.equal(x, rows[:, : lengths.max()])
    assert not x[torch.arange(x.shape[1]) >= lengths.unsqueeze(1)].any()
    assert torch.equal(y, labels)


def test_some_training_strings_can_be_held_out(data):
    cut = ReberStrings("in_alphabet", seed=1, hold_out=0.1)
    assert (len(cut.splits.train), len(cut.splits.val)) == (16_875, 1_875)
    x, _ = next(iter(cut.val_dataloader()))
    assert len(x.unsorted_indices) == 32


@pytest.mark.parametrize(
    ("options", "said"), [({"negatives": "hard"}, "negatives='hard'"), ({"padding": "left"}, "padding='left'")]
)
def test_a_bad_choice_is_named(options, said):
    with pytest.raises(UsageError, match=f"{said}: choose one of "):
        ReberStrings(**options)
