"""Tests mirror the tree: the test of a source file is found by its name."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    path.relative_to(ROOT / "sparse_rnn")
    for path in sorted((ROOT / "sparse_rnn").rglob("*.py"))
    if path.name not in ("__init__.py", "__main__.py")
]


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_every_source_file_has_its_test(source):
    test = ROOT / "tests" / source.with_name(f"test_{source.name}")
    assert test.is_file(), f"{test.relative_to(ROOT)} is missing"
