"""Names many folders of runs in few words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from glob import escape
from itertools import groupby, takewhile
from pathlib import Path


def named(folders: Collection[Path]) -> str:
    """Name folders that lie in the same one: by patterns, as a shell reads them, where these match nothing else.

    Args:
        folders: Those to name, which exist.

    Example:
        >>> for name in ("dense-seed0", "both-0.5-seed0", "both-0.9-seed0"):
        ...     Path("study", name).mkdir(parents=True)
        >>> named([Path("study", "both-0.5-seed0"), Path("study", "both-0.9-seed0")])
        'study/both-0.*-seed0'
        >>> named([Path("study", "both-0.5-seed0")])
        'study/both-0.5-seed0'
    """
    by_row = groupby(sorted(folders), key=lambda folder: folder.name.partition("-")[0])
    return ", ".join(text for _, group in by_row for text in _pattern(list(group)))


def _pattern(folders: list[Path]) -> list[str]:
    """Write folders whose names begin alike as one pattern, or one by one where it would match another file."""
    names = [folder.name for folder in folders]
    start = _beginning(names)
    end = _beginning([name[len(start) :][::-1] for name in names])[::-1]
    pattern = f"{escape(start)}*{escape(end)}"
    there = {path.name for path in folders[0].parent.iterdir() if fnmatchcase(path.name, pattern)}
    return [str(folders[0].with_name(pattern))] if len(names) > 1 and there == {*names} else list(map(str, folders))


def _beginning(names: Sequence[str]) -> str:
    """Return the letters that all names begin with."""
    alike = takewhile(lambda letters: len({*letters}) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike)
