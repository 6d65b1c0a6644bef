"""What a mask is: which weights are ranked together, which of them stay, and what is left."""
