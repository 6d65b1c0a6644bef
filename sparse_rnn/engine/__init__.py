"""Computes with the weights that are kept, and with nothing else."""
