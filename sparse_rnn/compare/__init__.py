"""The same fit for several methods, sparsities and seeds, and a table of them."""
