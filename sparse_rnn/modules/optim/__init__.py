"""Optimizers and gradients of few rows of large matrices."""
