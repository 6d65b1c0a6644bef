"""Loaders that can be resumed in the middle of an epoch, of tensors, columns of text and sentences; windows of text."""

from sparse_rnn.data.loaders.batches import BatchLoader
from sparse_rnn.data.loaders.columns import ColumnLoader
from sparse_rnn.data.loaders.passes import LoaderState, ResumableLoader
from sparse_rnn.data.loaders.resume import go_on_where_stopped
from sparse_rnn.data.loaders.sentences import SentenceShuffle, ShuffledText
from sparse_rnn.data.loaders.windows import WindowLoader

__all__ = [
    "BatchLoader",
    "ColumnLoader",
    "LoaderState",
    "ResumableLoader",
    "SentenceShuffle",
    "ShuffledText",
    "WindowLoader",
    "go_on_where_stopped",
]
