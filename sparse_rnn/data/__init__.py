"""Lightning data modules, one a file."""

from sparse_rnn.data.batches import BatchLoader
from sparse_rnn.data.digits import SequentialDigits
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.mnist import SequentialMNIST

__all__ = ["BatchLoader", "DataError", "SequentialDigits", "SequentialMNIST"]
