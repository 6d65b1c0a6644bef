"""Loaders that save their position: batches of tensors, columns of text, shuffled sentences."""
