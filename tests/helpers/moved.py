"""Which files have come to their places by a move, and so were never there in part."""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def all_files_moved(folder, monkeypatch):
    """Check that every file that a block puts into a folder was moved there, whole."""
    before, moved, replace = set(folder.rglob("*")), set(), os.replace

    def noted(source, target):
        moved.add(Path(target))
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", noted)
        yield
    written = {path for path in folder.rglob("*") if path.is_file()} - before
    assert written
    assert written <= moved
