"""Says which version of this package makes a result."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path


def commit() -> list[str]:
    """Name the commit of the checkout that this package runs from; nothing where it is installed.

    Returns:
        ``commit``, the shortest name of it, and where tracked files were changed since, ``-dirty-`` and a digest of
        these changes, so that results of different code have different names; or nothing.

    Example:
        >>> all(said.startswith("commit ") for said in commit())
        True
    """
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return []
    try:
        name = _git(root, "rev-parse", "--short", "HEAD").decode().strip()
        changes = _git(root, "diff", "--no-ext-diff", "--binary", "HEAD")
    except (OSError, subprocess.CalledProcessError):  # without git, or without a commit
        return []
    return [f"commit {name}-dirty-{hashlib.sha256(changes).hexdigest()[:8]}" if changes else f"commit {name}"]


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True).stdout
