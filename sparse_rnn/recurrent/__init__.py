"""What a recurrent layer is: its kernels and gates, one step of each cell, the inputs it receives."""

from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.kernels import Kernel, Targets, find_targets
from sparse_rnn.recurrent.layers import RecurrentLayer, RecurrentModule, named_layers
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.registry import register_cell
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU
from sparse_rnn.recurrent.spectrum import Spectrum, unrolled_layers

__all__ = [
    "Kernel",
    "PeepholeLSTM",
    "RecurrentLayer",
    "RecurrentModule",
    "ResetBeforeGRU",
    "Spectrum",
    "Targets",
    "find_recurrent",
    "find_targets",
    "named_layers",
    "register_cell",
    "unrolled_layers",
]
