"""Strings of the Reber grammar that stand between two letters, and those that do not."""

from sparse_rnn.data.grammar import accepts


def accepts_embedded(string: str) -> bool:
    """Whether it is B, T or P, a string of the grammar, the same T or P once more, E."""
    framed = string[:1] == "B" and string[-1:] == "E" and string[1:2] in ("T", "P") and string[1] == string[-2]
    return framed and accepts(string[2:-2])
