"""What scoring borrows from a project, and gives back as it was: training samples and the training step."""
