"""Text is UTF-8 on every system: where nothing says so, Python takes what the user's locale has."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "sparse_rnn").rglob("*.py"))
BYTES = {"os", "gzip"}  # whose open() is of bytes, or of numbers


def unsaid(tree):
    """The lines that open a file as text, or read or write one, and do not say in which encoding."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        name = call.func.attr if owner is not None else getattr(call.func, "id", "")
        said = {keyword.arg for keyword in call.keywords} >= {"encoding"}
        modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
        of_bytes = any("b" in str(mode) for mode in modes) or getattr(owner, "id", "") in BYTES
        as_text = name in ("read_text", "write_text") and owner is not None
        if (as_text or (name == "open" and not of_bytes)) and not said:
            yield call.lineno


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_text_says_its_encoding(file):
    assert list(unsaid(ast.parse(file.read_text(encoding="utf-8")))) == []


def test_what_says_nothing_is_found():
    silent = "a.read_text()\nb.open('w')\nopen(c)\nd.open('rb')\ne.open(encoding='utf-8')\nf.write_text(g)"
    assert list(unsaid(ast.parse(silent))) == [1, 2, 3, 6]
