"""Tokenizations as checkpoints hold them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sparse_rnn.data.errors import DataError
from sparse_rnn.data.tokens.subwords import Subwords
from sparse_rnn.data.tokens.tokenization import Bytes, Characters, Tokenization, Words


@dataclass(frozen=True, repr=False)
class Elsewhere:
    """A tokenization of the user's own, of which a checkpoint holds the name only.

    Args:
        name: Its ``repr``, which is the ``repr`` of this too.

    Example:
        >>> from sparse_rnn.data.tokens.tokenization_state import Elsewhere
        >>> Elsewhere("LowerCase()")("The cat")
        Traceback (most recent call last):
        sparse_rnn.data.errors.DataError: The checkpoint was trained on tokens of LowerCase(), which it cannot hold: ...
    """

    name: str
    boundary: ClassVar[re.Pattern[bytes]] = Words.boundary
    raw: ClassVar[bool] = False

    def __call__(self, text: str) -> Sequence[str]:
        """Refuse to divide text."""
        raise DataError(
            f"The checkpoint was trained on tokens of {self.name}, which it cannot hold: take the data module that has"
            " this tokenization."
        )

    def join(self, tokens: Sequence[str]) -> str:
        """Put spaces between tokens, as nothing better is known."""
        return " ".join(tokens)

    def __repr__(self) -> str:
        """Return the name."""
        return self.name


_OURS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Words, Characters, Bytes, Subwords)}


def tokenization_state(tokenization: Tokenization) -> dict[str, Any]:
    """Return what a checkpoint holds of a tokenization: its class and settings, or for a user's own its ``repr``.

    Example:
        >>> from sparse_rnn.data.tokens import Words
        >>> from sparse_rnn.data.tokens.tokenization_state import tokenization_state
        >>> tokenization_state(Words("<S>"))
        {'class': 'Words', 'end_of_line': '<S>'}
    """
    kind: type[Any] = type(tokenization)
    if _OURS.get(kind.__name__) is kind:
        return {"class": kind.__name__, **vars(tokenization)}
    return {"class": Elsewhere.__name__, "name": repr(tokenization)}


def tokenization_from(state: Mapping[str, Any]) -> Tokenization:
    """Build the tokenization that :func:`tokenization_state` has described.

    Raises:
        DataError: If this version of the package has no such tokenization.

    Example:
        >>> from sparse_rnn.data.tokens.tokenization_state import tokenization_from
        >>> tokenization_from({"class": "Words", "end_of_line": "<S>"})
        Words(end_of_line='<S>')
    """
    settings = dict(state)
    name = settings.pop("class")
    kind = Elsewhere if name == Elsewhere.__name__ else _OURS.get(name)
    if kind is None:
        raise DataError(f"There is no tokenization {name} in this version of sparse_rnn: install a later one.")
    return kind(**settings)
