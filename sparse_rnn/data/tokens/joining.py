"""Tokens put together to text again, as they come."""

from collections.abc import Iterable, Iterator, Sequence

from sparse_rnn.data.tokens.tokenization import Tokenization

_UNFINISHED = "\ufffd"  # what stands for the first bytes of a character whose others are missing
_LONGEST = 4  # bytes of a character


def streamed(tokens: Iterable[str], tokenization: Tokenization, before: Sequence[str] = ()) -> Iterator[str]:
    r"""Put tokens together to text, piece by piece, so that it can be shown while they are made.

    Args:
        tokens: The tokens.
        tokenization: What divided text into such tokens, and puts them together.
        before: The tokens that they go on after, which are not shown.

    Yields:
        What each token adds to the text; nothing where it does not end a character.

    Example:
        >>> from sparse_rnn.data.tokens import Words
        >>> from sparse_rnn.data.tokens.joining import streamed
        >>> list(streamed(["sat", "<eos>", "The", "end"], Words(), before=["The", "cat"]))
        [' sat', '\n', 'The', ' end']
    """
    shown, new = list(before[-1:]), []
    for token in tokens:
        new.append(token)
        text = tokenization.join([*shown, *new])
        if text.endswith(_UNFINISHED) and len(new) < _LONGEST:
            yield ""
            continue
        yield text[len(tokenization.join(shown)) :]
        shown, new = new, []
