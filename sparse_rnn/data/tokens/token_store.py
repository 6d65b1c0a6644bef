"""Text as token ids in memory maps, which are made once and then opened without delay."""

import itertools
import json
import os
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from filelock import FileLock
from lightning.pytorch.utilities import rank_zero_warn
from tqdm import tqdm

from sparse_rnn.checks import check_whole
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.tokens.corpus import TRAIN, Corpus
from sparse_rnn.data.tokens.pieces import PIECE_BYTES, Piece, count, divide
from sparse_rnn.data.tokens.processes import available_cores, in_processes, in_turn
from sparse_rnn.data.tokens.store_writer import ABOUT_FILE, VERSION, VOCABULARY_FILE, sum_counts, write_store
from sparse_rnn.data.tokens.vocabulary import Vocabulary

SAMPLES, SAMPLE_IDS = 16, 2**16  # of the ids of a split, when it is opened


class DamagedStoreError(DataError):
    """A folder is no whole token store, so that it is to be prepared anew."""


class TokenStore:
    """A folder of token ids that :func:`prepare` has written; ``store["train"]`` gives the ids of a split.

    Args:
        folder: The folder.

    Attributes:
        folder: The folder.
        vocabulary: The words and their ids.
        counts: How often each id occurs in the training split, int64 [V].
        about: What ``store.json`` says: the version, the tokenization, and for each split the number of its tokens,
            how many of them the vocabulary does not have, and the paths and SHA-256 checksums of its files.

    Raises:
        DataError: If the folder is no token store, is damaged, or was written by another version. Of the ids of a large
            text, samples are looked at, so that it opens without delay.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.tokens import Corpus, TokenStore, prepare
        >>> with tempfile.TemporaryDirectory() as name:
        ...     text = Path(name) / "text.txt"
        ...     _ = text.write_text("the cat and the dog")
        ...     folder = prepare(Corpus({"train": [text]}), Path(name) / "cache").folder
        ...     store = TokenStore(folder)
        ...     store.splits, store.vocabulary.lookup_tokens(store["train"][:2]), store.counts.max().item()
        (['train'], ['the', 'cat'], 2)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about: dict[str, Any] = self._read(ABOUT_FILE)
        if (version := self.about.get("version")) != VERSION:
            raise DataError(f"{folder} is a token store of version {version}, not {VERSION}: {self._advice}.")
        vocabulary = self._read(VOCABULARY_FILE)
        try:
            self.vocabulary = Vocabulary(vocabulary["words"], vocabulary["default_index"])
            self.counts = np.array(vocabulary["counts"], np.int64)
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise self._damaged(VOCABULARY_FILE, error) from None
        if self.counts.shape != (len(self.vocabulary),):
            raise self._damaged(VOCABULARY_FILE, ValueError("it does not count each of its words"))
        splits = self.about.get("splits")
        if not isinstance(splits, dict) or not all(isinstance(about, dict) for about in splits.values()):
            raise self._damaged(ABOUT_FILE, KeyError("splits"))
        self._ids = {split: self._open(split) for split in self.splits}

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.about["splits"])

    def __getitem__(self, split: str) -> np.memmap:
        """Return the ids of a split, a read-only memory map, int32 [N].

        Raises:
            DataError: If there is no such split.
        """
        if split not in self._ids:
            raise DataError(f"The text has no split {split!r}: take one of {', '.join(self._ids)}.")
        return self._ids[split]

    def unknown(self, split: str) -> int:
        """Count the tokens of a split that are read as the default index, ``<unk>``; 0 where there is none."""
        index = self.vocabulary.get_default_index()
        if index is None:
            return 0
        return int(self.counts[index] if split == TRAIN else np.count_nonzero(self[split] == index))

    def _open(self, split: str) -> np.memmap:
        try:
            ids: np.memmap = np.load(self.folder / f"{split}.npy", mmap_mode="r")
        except (EOFError, OSError, SyntaxError, TokenError, ValueError) as error:  # its header is Python
            raise self._damaged(f"{split}.npy", error) from None
        if ids.dtype != np.int32 or ids.shape != (self.about["splits"][split].get("tokens"),) or not len(ids):
            raise self._damaged(f"{split}.npy", ValueError(f"it holds {ids.dtype} {list(ids.shape)}"))
        for start in np.linspace(0, max(0, len(ids) - SAMPLE_IDS), SAMPLES, dtype=np.int64):
            sample = ids[start : start + SAMPLE_IDS]
            if sample.min() < 0 or sample.max() >= len(self.vocabulary):
                raise self._damaged(f"{split}.npy", ValueError("it holds ids that no word has"))
        return ids

    def _read(self, file: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._damaged(file, error) from None
        if not isinstance(content, dict):
            raise self._damaged(file, TypeError("it holds no JSON object"))
        return content

    def _damaged(self, file: str, error: Exception) -> DataError:
        kind = DataError if isinstance(error, PermissionError) else DamagedStoreError
        return kind(f"{self.folder} is no whole token store, {file} cannot be read ({error}): {self._advice}.")

    @property
    def _advice(self) -> str:
        return "delete the folder, and it is prepared anew from the text"


def prepare(corpus: Corpus, cache: Path, jobs: int | None = None) -> TokenStore:
    """Turn text files into a token store, or open the store that was made of them before.

    The folder of the store is named after the digest of the corpus, so that other files or settings have another
    folder. The text is read once, in pieces that several processes count. Pieces that an interrupted run has finished
    are used again, and the folder appears when it is whole. Processes that prepare the same store wait for the first.
    A store that is damaged is made anew.

    Args:
        corpus: The files, and how they become ids.
        cache: Folder that holds the folders of all stores.
        jobs: Number of processes at a time; by default one for every core that this process may use.

    Returns:
        The store.

    Raises:
        DataError: If there is neither a vocabulary nor a split ``train``; if a file is missing, empty, not UTF-8 or
            changes while it is read; if the vocabulary of the corpus lacks most words of a split, or lacks one and has
            no default index; or if the store cannot be written.
        UsageError: If ``jobs`` is below 1.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.tokens import Corpus, prepare
        >>> with tempfile.TemporaryDirectory() as name:
        ...     text = Path(name) / "text.txt"
        ...     _ = text.write_text("the cat and the dog")
        ...     store = prepare(Corpus({"train": [text]}), Path(name) / "cache")
        ...     store["train"].tolist(), store.vocabulary.get_itos()
        ([0, 3, 2, 0, 4, 1], ['the', '<eos>', 'and', 'cat', 'dog', '<unk>'])
    """
    jobs = available_cores() if jobs is None else jobs
    check_whole("jobs", jobs, 1, wanted="the number of processes")
    if corpus.vocabulary is None and TRAIN not in corpus.files:
        raise DataError(
            "There is no training text to take the vocabulary from: give the training text, a vocabulary, or the"
            " checkpoint of a model that was trained on one."
        )
    folder = cache / _name(corpus)
    store = _opened(folder)
    if store is None:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                store = _opened(folder)
                if store is None:
                    if folder.exists():
                        rank_zero_warn(f"The token store {folder} is damaged: it is made anew from the text.")
                        shutil.rmtree(folder)
                    _make(folder, corpus, jobs)
        except OSError as error:
            raise DataError(
                f"The token store {folder} could not be written ({error}): put that right, or give another cache;"
                " pieces of the text that are finished are kept."
            ) from error
    return store or TokenStore(folder)


def _opened(folder: Path) -> TokenStore | None:
    """Open a store; None where there is none, or none that is whole."""
    if not os.path.exists(folder):  # unlike Path.exists, it raises nothing for a folder that is not allowed
        return None
    try:
        return TokenStore(folder)
    except DamagedStoreError:
        return None


def _name(corpus: Corpus) -> str:
    return f"v{VERSION}-{corpus.digest()}"


def _make(folder: Path, corpus: Corpus, jobs: int) -> None:
    unfinished = folder.with_suffix(".unfinished")
    try:
        pieces = _count(corpus, jobs, unfinished)
        vocabulary = corpus.vocabulary
        if vocabulary is None:
            vocabulary = corpus.words_of(sum_counts(pieces[TRAIN]))
        written = write_store(unfinished / "store", pieces, repr(corpus.tokenization), vocabulary)
        if corpus.vocabulary is not None:
            _require_fit(written)
        if _name(corpus) != folder.name:
            raise DataError("A text file changed while it was read: start again once it is whole.")
    except DataError:
        shutil.rmtree(unfinished)  # of no use to another run: other text and settings have another folder
        raise
    os.replace(unfinished / "store", folder)
    shutil.rmtree(unfinished)


def _count(corpus: Corpus, jobs: int, folder: Path) -> dict[str, list[Piece]]:
    """Count the pieces of each split that are not finished yet, and return all of them."""
    folder.mkdir(exist_ok=True)
    splits = {
        split: [
            piece
            for number, path in enumerate(paths)
            for piece in divide(path, corpus.tokenization, folder, f"{split}-{number}")
        ]
        for split, paths in corpus.files.items()
    }
    pieces = list(itertools.chain.from_iterable(splits.values()))
    waiting = [piece for piece in pieces if not piece.record.exists()]
    size, left = (sum(piece.size for piece in some) for some in (pieces, waiting))
    # Processes pay for long text only.
    do = in_turn if jobs == 1 or left <= PIECE_BYTES else partial(in_processes, jobs=jobs)
    with tqdm(total=size, initial=size - left, desc="Reading text", unit="B", unit_scale=True) as bar:
        tokens, start = 0, time.perf_counter()
        for piece in do(partial(count, tokenization=corpus.tokenization), waiting):
            tokens += piece.tokens
            bar.set_postfix_str(f"{tokens / 1e6 / (time.perf_counter() - start):.1f} M tokens/s", refresh=False)
            bar.update(piece.size)
    return splits


def _require_fit(found: Mapping[str, Any]) -> None:
    """Refuse a vocabulary that lacks most of the text of a split."""
    for split, about in found.items():
        tokens, unknown = about["tokens"], about["unknown"]
        if 2 * unknown > tokens:
            raise DataError(
                f"The vocabulary lacks {unknown:,} of the {tokens:,} tokens of the split {split!r}: it is that of"
                " another corpus or tokenization; give the one that belongs to this text, or none."
            )
