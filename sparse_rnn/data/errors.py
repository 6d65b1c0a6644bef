"""Mistakes of the user that concern data."""

from sparse_rnn.errors import UsageError


class DataError(UsageError):
    """A data set is missing or damaged, or does not fit what is asked of it.

    The message is one sentence that ends in what to do about it.

    Example:
        >>> from sparse_rnn.data import TextFiles
        >>> TextFiles(train="none.txt", val="val.txt", test="test.txt").corpus()
        Traceback (most recent call last):
        sparse_rnn.data.errors.DataError: none.txt matches no file: put the text there, or give another path as train.
    """


class UnknownIdError(DataError, IndexError):
    """No word of a vocabulary has the id that was looked up.

    Example:
        >>> from sparse_rnn.data import Vocabulary
        >>> Vocabulary(["the", "cat"]).lookup_token(2)
        Traceback (most recent call last):
        sparse_rnn.data.errors.UnknownIdError: The id 2 is out of range: those of this vocabulary are 0 … 1.
    """
