"""Output layers over many classes: full, sampled and adaptive softmax."""
