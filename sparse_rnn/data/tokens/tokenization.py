"""What counts as a token."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol


class Tokenization(Protocol):
    """What divides text into tokens.

    Token stores of different tokenizations are kept apart by the ``repr`` of the tokenization, which must therefore
    name all its settings.

    Example:
        >>> from sparse_rnn.data.tokens import Words
        >>> class LowerCase(Words):
        ...     def __call__(self, text):
        ...         return super().__call__(text.lower())
        >>> list(LowerCase()("The Cat"))
        ['the', 'cat']
        >>> repr(LowerCase()).rsplit(".", 1)[-1]
        "LowerCase(end_of_line='<eos>')"
    """

    boundary: ClassVar[re.Pattern[bytes]]
    """Where UTF-8 text may be cut without changing its tokens: after any match, which must be of one byte."""

    def __call__(self, text: str) -> Sequence[str]:
        """Divide text into tokens. Its last line is whole, or is cut at a boundary."""


@dataclass(frozen=True)
class Words:
    r"""Words, which white space separates, and a marker after every line, blank ones too.

    Lines end in ``\n``. White space is what ``str.split`` splits at, as in the scripts that published counts of tokens
    come from.

    Args:
        end_of_line: The marker, such as ``<eos>`` for WikiText and ``<S>`` for the One Billion Word benchmark.

    Example:
        >>> from sparse_rnn.data.tokens import Words
        >>> list(Words()("No news.\n\nGood news.\n"))
        ['No', 'news.', '<eos>', '<eos>', 'Good', 'news.', '<eos>']
    """

    end_of_line: str = "<eos>"
    boundary: ClassVar[re.Pattern[bytes]] = re.compile(rb"[ \n]")

    def __call__(self, text: str) -> Sequence[str]:
        """Divide text into words and markers."""
        return text.replace("\n", f" {self.end_of_line} ").split()


@dataclass(frozen=True)
class Characters:
    r"""Characters, each of them a token, ``\n`` too; carriage returns are left out.

    Example:
        >>> from sparse_rnn.data.tokens import Characters
        >>> list(Characters()("a é\r\n"))
        ['a', ' ', 'é', '\n']
    """

    boundary: ClassVar[re.Pattern[bytes]] = re.compile(rb"[\x00-\xff](?=[^\x80-\xbf])", re.DOTALL)

    def __call__(self, text: str) -> Sequence[str]:
        """Divide text into characters."""
        return text.replace("\r", "")
