"""What counts as a token."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol


class Tokenization(Protocol):
    """Divides text into tokens; its ``repr`` tells it from others, so that their stores are kept apart."""

    boundary: ClassVar[re.Pattern[bytes]]
    """Where UTF-8 text may be cut without changing its tokens: after any match. A match is of one byte."""

    def __call__(self, text: str) -> Sequence[str]:
        """Return the tokens of text whose last line is whole, or cut at a boundary."""


@dataclass(frozen=True)
class Words:
    r"""Words between white space, and a marker after every line, blank ones too.

    Lines end in ``\n``; white space is what ``str.split`` takes for it, as in the scripts behind published counts.

    Args:
        end_of_line: the marker: ``<eos>`` as for WikiText, ``<S>`` as the one boundary of One Billion Words' sentences.
    """

    end_of_line: str = "<eos>"
    boundary: ClassVar[re.Pattern[bytes]] = re.compile(rb"[ \n]")

    def __call__(self, text: str) -> Sequence[str]:
        """Return the words and markers."""
        return text.replace("\n", f" {self.end_of_line} ").split()


@dataclass(frozen=True)
class Characters:
    r"""Every character a token, ``\n`` too; carriage returns are left out."""

    boundary: ClassVar[re.Pattern[bytes]] = re.compile(rb"[\x00-\xff](?=[^\x80-\xbf])", re.DOTALL)

    def __call__(self, text: str) -> Sequence[str]:
        """Return the characters."""
        return text.replace("\r", "")
