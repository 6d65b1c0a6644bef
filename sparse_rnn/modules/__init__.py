"""Models that know nothing of pruning, and what they are made of."""

from sparse_rnn.modules.classifier import SequenceClassifier
from sparse_rnn.modules.dropout import VariationalDropout, WordDropout
from sparse_rnn.modules.init import init_biases_, init_kernel_
from sparse_rnn.modules.language_model import LanguageModel
from sparse_rnn.modules.layers import init_recurrent_, recurrent_layer
from sparse_rnn.modules.optim.nt_asgd import NTASGD
from sparse_rnn.modules.optim.row_adam import RowAdam
from sparse_rnn.modules.optim.row_gradients import RowGradients
from sparse_rnn.modules.optim.schedule import CosineAnnealing, LinearDecay
from sparse_rnn.modules.perplexity import BitsPerToken, Perplexity, TokenLoss
from sparse_rnn.modules.structured_rnn import StructuredRNN

__all__ = [
    "NTASGD",
    "BitsPerToken",
    "CosineAnnealing",
    "LanguageModel",
    "LinearDecay",
    "Perplexity",
    "RowAdam",
    "RowGradients",
    "SequenceClassifier",
    "StructuredRNN",
    "TokenLoss",
    "VariationalDropout",
    "WordDropout",
    "init_biases_",
    "init_kernel_",
    "init_recurrent_",
    "recurrent_layer",
]
