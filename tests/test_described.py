"""Docstrings are completed in the order of the signature, by what is told once."""

import inspect

import pytest

from sparse_rnn.described import described_by

SHARED = """
Args:
    seed: Seed of all
        random numbers.
    rounds: How often.
"""
described = described_by(SHARED)


def test_an_argument_that_nobody_describes_is_an_error():
    with pytest.raises(KeyError, match="sparsty"):

        @described
        def misspelt(module, sparsty):
            """Prune.

            Args:
                module: The model.
            """


def test_own_texts_prevail_and_the_rest_of_the_docstring_stays():
    @described
    class Own:
        """Do something.

        More on it:
        a second line.

        Args:
            first: One
                that takes two lines.
            seed: Mine.

        Raises:
            UsageError: If it must.

        Example:
            >>> 1 + 1
            2
        """

        def __init__(self, seed, rounds, first):
            pass

    assert inspect.getdoc(Own) == inspect.cleandoc("""Do something.

        More on it:
        a second line.

        Args:
            seed: Mine.
            rounds: How often.
            first: One
                that takes two lines.

        Raises:
            UsageError: If it must.

        Example:
            >>> 1 + 1
            2
        """)


def test_a_docstring_without_arguments_of_its_own_gets_the_section():
    @described
    def plain(rounds, seed):
        """Do it."""

    section = "    rounds: How often.\n    seed: Seed of all\n        random numbers."
    assert plain.__doc__ == f"Do it.\n\nArgs:\n{section}"
