"""LightningModules that know nothing of pruning."""

from sparse_rnn.modules.classifier import SequenceClassifier

__all__ = ["SequenceClassifier"]
