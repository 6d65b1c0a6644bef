"""Says which version of this package makes a result."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> list[str]:
    """Name the commit of the checkout that this package runs from; nothing where it is installed.

    Returns:
        ``commit``, the shortest name of it, and ``-dirty`` where files were changed since; or nothing.

    Example:
        >>> all(said.startswith("commit ") for said in commit())
        True
    """
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return []
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # without git
        return []
    return [f"commit {found}"] if found else []
