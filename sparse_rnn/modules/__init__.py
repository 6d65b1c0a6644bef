"""LightningModules that know nothing of pruning."""

from sparse_rnn.modules.classifier import SequenceClassifier
from sparse_rnn.modules.language_model import LanguageModel
from sparse_rnn.modules.optim.row_adam import RowAdam

__all__ = ["LanguageModel", "RowAdam", "SequenceClassifier"]
