"""What the ids of a language model stand for: its vocabulary and tokenization, as checkpoints carry them."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.tokens.tokenization import Tokenization
from sparse_rnn.data.tokens.tokenization_state import tokenization_from, tokenization_state
from sparse_rnn.data.tokens.vocabulary import Vocabulary

KEY = "lexicon"  # in a checkpoint, of itself or in the state of its data module


@dataclass(frozen=True)
class Lexicon:
    """A vocabulary, and the tokenization whose tokens are its words; iterating gives these two.

    Args:
        vocabulary: The words and their ids.
        tokenization: What divides text into tokens.
        unknown: How many tokens of the text that is trained on have the default index; None where that is not known.

    Example:
        >>> from sparse_rnn.data.tokens import Lexicon, Vocabulary, Words
        >>> lexicon = Lexicon(Vocabulary(["the", "cat", "<eos>", "<unk>"], 3), Words())
        >>> vocabulary, tokenization = Lexicon.from_state(lexicon.state())
        >>> vocabulary(tokenization("the cat sat"))
        [0, 1, 3]
    """

    vocabulary: Vocabulary
    tokenization: Tokenization
    unknown: int | None = None

    def __iter__(self) -> Iterator[Any]:
        """Give the vocabulary, then the tokenization."""
        return iter((self.vocabulary, self.tokenization))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Lexicon":
        """Return the same: copies of a model, as averages of weights are, need no words of their own."""
        return self

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of this: tensors and primitives, for ``torch.load(weights_only=True)``.

        The words are one tensor, uint8 [bytes], of a JSON list in UTF-8: a string a word would make a checkpoint of
        many words large and slow to read.
        """
        packed = self._packed()
        words = torch.from_numpy(np.frombuffer(packed, np.uint8).copy())
        return {
            "words": words,
            "default_index": self.vocabulary.get_default_index(),
            "tokenization": tokenization_state(self.tokenization),
            "unknown": self.unknown,
            "sha256": hashlib.sha256(packed).hexdigest(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Lexicon":
        """Read what :meth:`state` has returned.

        Raises:
            DataError: If it is damaged.
        """
        try:
            packed = state["words"].numpy().tobytes()
            if hashlib.sha256(packed).hexdigest() != state["sha256"]:
                raise ValueError("the words have another checksum than is stored beside them")
            vocabulary = Vocabulary(json.loads(packed.decode("utf-8", "surrogatepass")), state["default_index"])
            return cls(vocabulary, tokenization_from(state["tokenization"]), state["unknown"])
        except DataError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"The checkpoint's vocabulary is damaged ({error}): take another checkpoint.") from None

    def difference(self, other: "Lexicon") -> str | None:
        """Say what distinguishes this from another one, or return None where ids and tokens are the same.

        Example:
            >>> from sparse_rnn.data.tokens import Characters, Lexicon, Vocabulary
            >>> mine, other = (Lexicon(Vocabulary(words), Characters()) for words in ("abc", "abd"))
            >>> mine.difference(other)
            "word 2 is 'c', not 'd'"
        """
        if repr(self.tokenization) != repr(other.tokenization):
            return f"tokens are those of {self.tokenization!r}, not of {other.tokenization!r}"
        mine, its = self.vocabulary.get_itos(), other.vocabulary.get_itos()
        if len(mine) != len(its):
            return f"it has {len(mine):,} words, not {len(its):,}"
        for index, (word, another) in enumerate(zip(mine, its, strict=True)):
            if word != another:
                return f"word {index:,} is {word!r}, not {another!r}"
        default, its_default = self.vocabulary.get_default_index(), other.vocabulary.get_default_index()
        return None if default == its_default else f"unknown words have the id {default}, not {its_default}"

    def _packed(self) -> bytes:
        return json.dumps(self.vocabulary.get_itos(), ensure_ascii=False).encode("utf-8", "surrogatepass")


def lexicon_in(checkpoint: Mapping[str, Any]) -> Lexicon | None:
    """Find the vocabulary and tokenization in a checkpoint that is loaded.

    Args:
        checkpoint: Lightning's dictionary.

    Returns:
        The two, or None where the checkpoint has none, as those of 0.1.0 and those of other data.

    Raises:
        DataError: If they are damaged.

    Example:
        >>> from sparse_rnn.data.tokens import Characters, Lexicon, Vocabulary
        >>> from sparse_rnn.data.tokens.lexicon import lexicon_in
        >>> lexicon = Lexicon(Vocabulary("ab"), Characters())
        >>> lexicon_in({"epoch": 3, "TextFiles": {"lexicon": lexicon.state()}}).vocabulary.get_itos()
        ['a', 'b']
    """
    # Lightning stores the state of a data module under the name of its class, which may be one of the user's.
    for part in (checkpoint, *checkpoint.values()):
        if isinstance(part, Mapping) and isinstance(part.get(KEY), Mapping):
            return Lexicon.from_state(part[KEY])
    return None


def vocabulary_of_checkpoint(path: str | os.PathLike[str]) -> Lexicon:
    """Read what the ids of a language model stand for from its checkpoint.

    Args:
        path: A checkpoint of a model that was trained on a text data module.

    Returns:
        The vocabulary and the tokenization, as a pair that can be unpacked.

    Raises:
        MissingFileError: If there is no such file.
        UsageError: If it is no checkpoint.
        DataError: If it has no vocabulary.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from sparse_rnn.data import Vocabulary, vocabulary_of_checkpoint
        >>> from sparse_rnn.data.tokens import Characters, Lexicon
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "last.ckpt")
        ...     torch.save({"state_dict": {}, "lexicon": Lexicon(Vocabulary("ab"), Characters()).state()}, path)
        ...     vocabulary, tokenization = vocabulary_of_checkpoint(path)
        >>> vocabulary(tokenization("abba"))
        [0, 1, 1, 0]
    """
    lexicon = lexicon_in(load_checkpoint(path))
    if lexicon is None:
        raise DataError(
            f"{path} holds no vocabulary: it was saved before checkpoints did, or the model was not trained on a text"
            " data module; give the data the text that it was trained on."
        )
    return lexicon
