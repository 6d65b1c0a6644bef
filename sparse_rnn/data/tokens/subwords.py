"""Subwords, by the library tokenizers of Hugging Face, which is optional."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from sparse_rnn.checks import check_whole
from sparse_rnn.data.errors import DataError
from sparse_rnn.errors import UsageError

FEWEST = 257  # a byte each, and <unk>


@dataclass(frozen=True, repr=False)
class Subwords:
    """Subwords of a tokenizer of Hugging Face; special tokens, truncation and padding are left out.

    Args:
        tokenizer: The tokenizer, as its file ``tokenizer.json`` holds it.

    Raises:
        UsageError: If the library tokenizers is missing.
        DataError: If this is no tokenizer.
    """

    tokenizer: str
    # White space is never cut from what follows it, as a byte-level tokenizer puts a space and the next word together.
    boundary: ClassVar[re.Pattern[bytes]] = re.compile(rb"[^ \t\r\n](?=[ \t\r\n])")
    raw: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _loaded(self.tokenizer)

    def __repr__(self) -> str:
        """Return a name that no other tokenizer has."""
        return f"Subwords({hashlib.sha256(self.tokenizer.encode()).hexdigest()[:16]})"

    def __call__(self, text: str) -> Sequence[str]:
        """Divide text into subwords."""
        tokens: list[str] = _loaded(self.tokenizer).encode(text, add_special_tokens=False).tokens
        return tokens

    def join(self, tokens: Sequence[str]) -> str:
        """Put subwords together, as the tokenizer's decoder does."""
        decoder = _loaded(self.tokenizer).decoder
        return " ".join(tokens) if decoder is None else str(decoder.decode(list(tokens)))

    @property
    def symbols(self) -> list[str]:
        """All subwords that there are, those that no text has too."""
        return sorted(_loaded(self.tokenizer).get_vocab())


def train_subwords(files: Sequence[Path], size: int) -> Subwords:
    """Find the subwords of a text by byte pair encoding of its bytes, so that there is no unknown word.

    Source: Sennrich, Haddow and Birch, 2016 (arXiv 1508.07909); of bytes, as in GPT-2.

    Args:
        files: The text, in UTF-8.
        size: Number of subwords; 256 are the bytes, and one is ``<unk>``. A short text has fewer.

    Raises:
        UsageError: If the number is below 257, or the library tokenizers is missing.
        DataError: If the text is not in UTF-8.
    """
    check_whole("subwords", size, FEWEST, wanted="their number", hint="as 256 are the bytes and one is <unk>")
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<unk>"],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    try:
        tokenizer.train([os.fspath(path) for path in files], trainer)
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"Subwords of {', '.join(map(str, files))} cannot be found ({error}): give UTF-8.") from None
    # Processes that read the text are forked from this one, about which the library would complain on stderr.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return Subwords(tokenizer.to_str())


def read_subwords(path: Path) -> Subwords:
    """Read a tokenizer from its file ``tokenizer.json``.

    Raises:
        UsageError: If the library tokenizers is missing.
        DataError: If the file cannot be read, or holds no tokenizer.
    """
    try:
        return Subwords(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise DataError(f"{path} cannot be read ({error}): give the tokenizer.json of a tokenizer.") from None


@lru_cache(maxsize=4)
def _loaded(tokenizer: str) -> Any:
    library = _library()
    try:
        loaded = library.Tokenizer.from_str(tokenizer)
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"This is no tokenizer ({error}): give the tokenizer.json of one.") from None
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise UsageError("Subwords need the library tokenizers: pip install 'sparse-rnn[text]'.") from None
    return tokenizers
