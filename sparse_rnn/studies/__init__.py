"""Studies of what sparsity does to recurrent networks: many fits, and what they say together."""
