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
    """Where UTF-8 text may be cut without changing its tokens, after any match, which must be of one byte."""

    raw: ClassVar[bool] = False
    """Whether files are taken as they are, not only UTF-8, and without a line feed that is added at the end."""

    def __call__(self, text: str) -> Sequence[str]:
        """Divide text into tokens. Its last line is whole, or is cut at a boundary."""

    def join(self, tokens: Sequence[str]) -> str:
        """Return the text that tokens stand for, as far as they tell."""


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
    raw: ClassVar[bool] = False

    def __call__(self, text: str) -> Sequence[str]:
        """Divide text into words and markers."""
        return text.replace("\n", f" {self.end_of_line} ").split()

    def join(self, tokens: Sequence[str]) -> str:
        """Put spaces between words, and line feeds in the place of markers."""
        lines: list[list[str]] = [[]]
        for token in tokens:
            if token == self.end_of_line:
                lines.append([])
            else:
                lines[-1].append(token)
        return "\n".join(map(" ".join, lines))


@dataclass(frozen=True)
class Characters:
    r"""Characters, each of them a token, ``\n`` too; carriage returns are left out.

    Example:
        >>> from sparse_rnn.data.tokens import Characters
        >>> list(Characters()("a é\r\n"))
        ['a', ' ', 'é', '\n']
    """

    boundary: ClassVar[re.Pattern[bytes]] = re.compile(rb"[\x00-\xff](?=[^\x80-\xbf])", re.DOTALL)
    raw: ClassVar[bool] = False

    def __call__(self, text: str) -> Sequence[str]:
        """Divide text into characters."""
        return text.replace("\r", "")

    def join(self, tokens: Sequence[str]) -> str:
        """Put characters together."""
        return "".join(tokens)


@dataclass(frozen=True)
class Bytes:
    r"""Bytes of the file, each of them a token: the character whose number it is, as in Latin-1.

    Nothing is added or left out, so that a file may hold anything. Text that is not from a file stands for its UTF-8.

    Example:
        >>> from sparse_rnn.data.tokens import Bytes
        >>> list(Bytes()("a é"))
        ['a', ' ', 'Ã', '©']
        >>> Bytes().join(["Ã", "©"])
        'é'
    """

    boundary: ClassVar[re.Pattern[bytes]] = re.compile(rb"[\x00-\xff]", re.DOTALL)
    raw: ClassVar[bool] = True

    def __call__(self, text: str) -> Sequence[str]:
        """Divide text into bytes."""
        return text.encode("utf-8", "surrogateescape").decode("latin-1")

    def join(self, tokens: Sequence[str]) -> str:
        """Read bytes as UTF-8, with U+FFFD for those that are none."""
        return "".join(tokens).encode("latin-1").decode("utf-8", "replace")
