"""Output layers over many classes: full, sampled and adaptive softmax."""

from sparse_rnn.modules.softmax.output_layers import PADDING, AdaptiveSoftmax, FullSoftmax
from sparse_rnn.modules.softmax.sampled import SampledSoftmaxLoss

__all__ = ["PADDING", "AdaptiveSoftmax", "FullSoftmax", "SampledSoftmaxLoss"]
