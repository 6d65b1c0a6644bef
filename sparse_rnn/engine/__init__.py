"""Computes with the weights that are kept, and with nothing else."""

from sparse_rnn.engine.compact import compact
from sparse_rnn.engine.files import load, save
from sparse_rnn.engine.layers import SparseGRU, SparseLSTM, SparsePeepholeLSTM, SparseRNN

__all__ = ["SparseGRU", "SparseLSTM", "SparsePeepholeLSTM", "SparseRNN", "compact", "load", "save"]
