"""What a program that catches errors of data relies on."""

import pickle

import pytest

from sparse_rnn.data import DataError, Vocabulary
from sparse_rnn.data.errors import UnknownIdError
from sparse_rnn.errors import UsageError


def test_errors_of_data_are_mistakes_of_the_user():
    assert issubclass(DataError, UsageError)
    assert issubclass(DataError, ValueError)


@pytest.mark.parametrize("kind", [DataError, UnknownIdError])
def test_an_error_comes_whole_through_a_process(kind):
    error = pickle.loads(pickle.dumps(kind("train.txt is empty: put the text there.")))
    assert type(error) is kind
    assert str(error) == "train.txt is empty: put the text there."


def test_an_unknown_id_ends_a_loop_over_a_sequence():
    """Python's protocol of sequences asks for an IndexError."""

    class Words:
        def __getitem__(self, index):
            return Vocabulary(["the", "cat"]).lookup_token(index)

    assert list(Words()) == ["the", "cat"]
