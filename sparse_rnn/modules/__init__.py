"""LightningModules, and the layers that only they need."""
