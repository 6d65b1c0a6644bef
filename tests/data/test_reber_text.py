"""The Reber grammar as running text."""

import re

import pytest
import torch
from embedded_strings import accepts_embedded

from sparse_rnn.data import ReberText
from sparse_rnn.data.grammar import accepts
from sparse_rnn.errors import UsageError


@pytest.mark.parametrize("embedded", [False, True])
def test_the_text_is_strings_of_the_grammar_one_behind_the_other(embedded):
    text = ReberText(embedded=embedded).texts()["val"]
    strings = re.findall(r"B[TP]B.*?E[TP]E" if embedded else "B.*?E", text)
    assert len(strings) == 3_125
    assert "".join(strings) == text
    assert all(map(accepts_embedded if embedded else accepts, strings))


def test_a_language_model_reads_it_letter_by_letter(cache):
    data = ReberText(batch_size=4, bptt=10, seed=3)
    data.prepare_data()
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (4, 10)
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert "".join(data.vocabulary.lookup_tokens(data.store["val"])).rstrip("\n") == data.texts()["val"]
    assert {*"BEPSTVX"} <= set(data.vocabulary.lookup_tokens(range(data.vocab_size)))


def test_the_seed_decides_the_text():
    assert ReberText(seed=1).texts() == ReberText(seed=1).texts() != ReberText(seed=2).texts()
    with pytest.raises(UsageError, match="seed=-1"):
        ReberText(seed=-1)
