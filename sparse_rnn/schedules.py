"""The schedules under the name that version 0.1.0 gave them; write ``from sparse_rnn.pruning import Cubic`` today."""

from sparse_rnn.pruning.schedules import CosineDecay, Cubic, IterativeSteps, NarangRamp

__all__ = ["CosineDecay", "Cubic", "IterativeSteps", "NarangRamp"]
