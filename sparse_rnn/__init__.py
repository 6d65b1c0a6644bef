"""Prune recurrent networks in PyTorch and PyTorch Lightning."""
