"""What counts as a token."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from sparse_rnn.data.errors import DataError


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


@dataclass(frozen=True)
class Bytes:
    r"""Bytes of the UTF-8 text, each of them a token: the character whose number it is, as in Latin-1.

    Example:
        >>> from sparse_rnn.data.tokens import Bytes
        >>> list(Bytes()("a é"))
        ['a', ' ', 'Ã', '©']
    """

    boundary: ClassVar[re.Pattern[bytes]] = Characters.boundary

    def __call__(self, text: str) -> Sequence[str]:
        """Divide text into bytes."""
        return text.encode().decode("latin-1")


@dataclass(frozen=True, repr=False)
class Elsewhere:
    """A tokenization of the user's own, of which a checkpoint holds the name only.

    Args:
        name: Its ``repr``, which is the ``repr`` of this too.

    Example:
        >>> from sparse_rnn.data.tokens.tokenization import Elsewhere
        >>> Elsewhere("LowerCase()")("The cat")
        Traceback (most recent call last):
        sparse_rnn.data.errors.DataError: The checkpoint was trained on tokens of LowerCase(), which it cannot hold: ...
    """

    name: str
    boundary: ClassVar[re.Pattern[bytes]] = Words.boundary

    def __call__(self, text: str) -> Sequence[str]:
        """Refuse to divide text."""
        raise DataError(
            f"The checkpoint was trained on tokens of {self.name}, which it cannot hold: take the data module that has"
            " this tokenization."
        )

    def __repr__(self) -> str:
        """Return the name."""
        return self.name


_OURS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Words, Characters, Bytes)}


def tokenization_state(tokenization: Tokenization) -> dict[str, Any]:
    """Return what a checkpoint holds of a tokenization: its class and settings, or for a user's own its ``repr``.

    Example:
        >>> from sparse_rnn.data.tokens import Words
        >>> from sparse_rnn.data.tokens.tokenization import tokenization_state
        >>> tokenization_state(Words("<S>"))
        {'class': 'Words', 'end_of_line': '<S>'}
    """
    kind = type(tokenization)
    if _OURS.get(kind.__name__) is kind:
        return {"class": kind.__name__, **asdict(tokenization)}  # type: ignore[call-overload]  # all are dataclasses
    return {"class": Elsewhere.__name__, "name": repr(tokenization)}


def tokenization_from(state: Mapping[str, Any]) -> Tokenization:
    """Build the tokenization that :func:`tokenization_state` has described.

    Raises:
        DataError: If this version of the package has no such tokenization.

    Example:
        >>> from sparse_rnn.data.tokens.tokenization import tokenization_from
        >>> tokenization_from({"class": "Words", "end_of_line": "<S>"})
        Words(end_of_line='<S>')
    """
    settings = dict(state)
    name = settings.pop("class")
    kind = Elsewhere if name == Elsewhere.__name__ else _OURS.get(name)
    if kind is None:
        raise DataError(f"There is no tokenization {name} in this version of sparse_rnn: install a later one.")
    tokenization: Tokenization = kind(**settings)
    return tokenization
