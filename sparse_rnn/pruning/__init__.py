"""Pruning of any nn.Module: score, select, apply, in one round or several; schedules; rescaling."""

from sparse_rnn.pruning.prune import prune

__all__ = ["prune"]
