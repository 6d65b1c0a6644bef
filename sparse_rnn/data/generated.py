"""Texts that no file holds: they are written to the cache, from where a data set of running text reads them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from sparse_rnn.data.download import cache_folder, write_once


def cached_files(name: str, texts: Mapping[str, str]) -> dict[str, list[Path]]:
    """Write the text of each split to a file in the cache, where it is not there yet.

    Args:
        name: Of the data set.
        texts: Split to text.

    Returns:
        Split to files, as :class:`sparse_rnn.data.tokens.Corpus` takes them.

    Raises:
        DataError: If the cache cannot be written.
    """
    digest = hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()[:16]
    folder = cache_folder(name) / digest
    return {split: [write_once(folder / f"{split}.txt", text.encode)] for split, text in texts.items()}
